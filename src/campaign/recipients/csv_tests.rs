//! Tests of CSV.

use super::*;

/// The fields of the first record, and how many octets it takes.
fn check(octets: &str, last: bool, want: Result<(&[&str], usize), Split>) {
    let mut fields = Vec::new();
    let got = match split(octets.as_bytes(), b',', last, &mut fields) {
        Split::Record(len) => {
            let cells = fields.iter().map(|f| cell(octets.as_bytes(), *f, Encoding::Utf8).into_owned()).collect();
            Ok((cells, len))
        }
        other => Err(other),
    };
    let want: Result<(Vec<String>, usize), Split> =
        want.map(|(cells, len)| (cells.iter().map(|c| (*c).to_owned()).collect(), len));
    assert_eq!(got, want, "{octets:?}");
}

#[test]
fn records_are_split_where_rfc_4180_says() {
    check("a,b\nc", false, Ok((&["a", "b"], 4)));
    check("a,b\r\nc", false, Ok((&["a", "b"], 5)));
    check("a,,\n", false, Ok((&["a", "", ""], 4)));
    check("\"x,\r\ny\",\"say \"\"hi\"\"\"\nz", false, Ok((&["x,\r\ny", "say \"hi\""], 21)));
    check("\"\",x\n", false, Ok((&["", "x"], 5)));
    check("5\" pipe,x\n", false, Ok((&["5\" pipe", "x"], 10)));
    check("a,b", true, Ok((&["a", "b"], 3)));
    check("a,\"b\"", true, Ok((&["a", "b"], 5)));
    check("a,\"b\"\r", true, Ok((&["a", "b"], 6)));
    check("a,b\r", true, Ok((&["a", "b"], 4)));
}

#[test]
fn an_end_that_is_not_there_yet_is_no_error() {
    for octets in ["a,b", "\"a", "\"a\"", "\"a\"\r", "\"a\"\"", "\"a,b\nc,d\n", ""] {
        check(octets, false, Err(Split::Incomplete));
    }
}

#[test]
fn broken_quotes_are_told() {
    check("\"a\"b,c\n", false, Err(Split::TextAfterQuote));
    check("\"a,b\nc,d\n", true, Err(Split::OpenQuote));
    check(&",".repeat(1_001), false, Err(Split::TooMany));
}

#[test]
fn the_delimiter_is_what_the_header_has_most_of() {
    for (header, want) in [
        ("email,name\n", b','),
        ("email;name;a,b\n", b';'),
        ("email\tname\n", b'\t'),
        ("email|name\n", b'|'),
        ("email\n", b','),
        ("\"a;b;c\",email,x\n;;;;;", b','),
    ] {
        assert_eq!(delimiter(header.as_bytes()), want, "{header:?}");
    }
}

fn header(text: &[u8]) -> Result<Vec<Column>, HeaderError> {
    let mut fields = Vec::new();
    let delimiter = delimiter(text);
    assert_eq!(split(text, delimiter, true, &mut fields), Split::Record(text.len()));
    Dialect::of_header(text, &fields, delimiter, &mut Encoding::Unknown).map(|d| d.columns)
}

#[test]
fn columns_are_known_by_their_names() {
    use Column::*;
    let var = |name: &str| Var(name.into());
    let columns = header("E-Mail; Name ;TZ;First name;2nd;metadata.crm_id;vars.x;größe".as_bytes());
    let want = vec![Email, Name, Tz, var("First_name"), var("_2nd"), Metadata("crm_id".into()), var("x"), var("größe")];
    assert_eq!(columns, Ok(want));
    // A street beside an email is a variable; alone it is the address.
    assert_eq!(header(b"address,email"), Ok(vec![var("address"), Email]));
    assert_eq!(header(b"Address,town"), Ok(vec![Email, var("town")]));
    assert_eq!(header(b"email,gr\xf6\xdfe"), Ok(vec![Email, var("größe")]));
}

#[test]
fn a_header_that_can_not_be_right_is_refused() {
    assert!(matches!(header(b"jane@x.example,Jane"), Err(HeaderError::NoEmail(_))));
    assert_eq!(header(b"email,town,town"), Err(HeaderError::Twice("town".into())));
    assert_eq!(header(b"email,first name,first_name"), Err(HeaderError::Twice("first_name".into())));
    assert_eq!(header(b"email,Email"), Err(HeaderError::Twice("Email".into())));
    assert_eq!(header(b"email,name,Name"), Err(HeaderError::Twice("Name".into())));
    assert_eq!(header(b"email,,town"), Err(HeaderError::NoName(2)));
    assert_eq!(header(b"email,town\ra@b.example,Lyon\r"), Err(HeaderError::BareCr));
}
