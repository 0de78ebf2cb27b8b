//! Templates and segments.
fn main() {
    divan::main();
}
