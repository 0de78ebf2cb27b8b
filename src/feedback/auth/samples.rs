//! Reports in the forms that receivers send; names, addresses and counts are made up.

/// Google's form: an old declaration, no version, a subdomain policy, one record a line of results.
pub const GOOGLE: &str = r#"<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <version>1.0</version>
  <report_metadata>
    <org_name>google.com</org_name>
    <email>noreply-dmarc-support@google.com</email>
    <extra_contact_info>https://support.google.com/a/answer/2466580</extra_contact_info>
    <report_id>11480935628091234567</report_id>
    <date_range>
      <begin>1795305600</begin>
      <end>1795391999</end>
    </date_range>
  </report_metadata>
  <policy_published>
    <domain>acme.example</domain>
    <adkim>r</adkim>
    <aspf>r</aspf>
    <p>quarantine</p>
    <sp>reject</sp>
    <pct>100</pct>
    <np>reject</np>
  </policy_published>
  <record>
    <row>
      <source_ip>192.0.2.10</source_ip>
      <count>1200</count>
      <policy_evaluated>
        <disposition>none</disposition>
        <dkim>pass</dkim>
        <spf>pass</spf>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>acme.example</header_from>
    </identifiers>
    <auth_results>
      <dkim>
        <domain>acme.example</domain>
        <result>pass</result>
        <selector>s1</selector>
      </dkim>
      <spf>
        <domain>bounce.acme.example</domain>
        <result>pass</result>
      </spf>
    </auth_results>
  </record>
  <record>
    <row>
      <source_ip>203.0.113.77</source_ip>
      <count>3</count>
      <policy_evaluated>
        <disposition>quarantine</disposition>
        <dkim>fail</dkim>
        <spf>fail</spf>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>acme.example</header_from>
    </identifiers>
    <auth_results>
      <spf>
        <domain>spammer.example</domain>
        <result>softfail</result>
      </spf>
    </auth_results>
  </record>
</feedback>
"#;

/// Microsoft's form: namespaces of the schema, envelope_to, one line, IPv6, an override.
pub const MICROSOFT: &str = concat!(
    r#"<?xml version="1.0"?><feedback xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">"#,
    r#"<version>1.0</version><report_metadata><org_name>Enterprise Outlook</org_name><email>dmarcreport@microsoft.com</email>"#,
    r#"<report_id>b5c04b0dbf6b4d2bb9a0ccb1e9a2d7f1</report_id><date_range><begin>1795305600</begin><end>1795392000</end></date_range></report_metadata>"#,
    r#"<policy_published><domain>Acme.Example</domain><adkim>r</adkim><aspf>r</aspf><p>quarantine</p><sp>quarantine</sp><pct>100</pct><fo>0</fo></policy_published>"#,
    r#"<record><row><source_ip>2001:db8::10</source_ip><count>7</count><policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf>"#,
    r#"<reason><type>local_policy</type><comment>arc=pass</comment></reason></policy_evaluated></row>"#,
    r#"<identifiers><envelope_to>contoso.example</envelope_to><envelope_from>list.example</envelope_from><header_from>news.acme.example</header_from></identifiers>"#,
    r#"<auth_results><dkim><domain>acme.example</domain><selector>s1</selector><result>pass</result></dkim>"#,
    r#"<spf><domain>list.example</domain><scope>mfrom</scope><result>pass</result></spf></auth_results></record></feedback>"#
);

/// Yahoo's form: several signatures, entities in a text, a count of several records for one address.
pub const YAHOO: &str = r#"<?xml version="1.0"?>
<feedback>
  <report_metadata>
    <org_name>Yahoo</org_name>
    <email>dmarchelp@yahooinc.com</email>
    <report_id>1795400001.123456</report_id>
    <date_range>
      <begin>1795305600</begin>
      <end>1795391999 </end>
    </date_range>
    <error>R&amp;D says &#x22;fine&#34;</error>
  </report_metadata>
  <policy_published>
    <domain>acme.example</domain>
    <adkim>r</adkim>
    <aspf>r</aspf>
    <p>none</p>
    <pct>100</pct>
  </policy_published>
  <record>
    <row>
      <source_ip>192.0.2.10</source_ip>
      <count>2</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated>
    </row>
    <identifiers><header_from>acme.example</header_from></identifiers>
    <auth_results>
      <dkim><domain>acme.example</domain><selector>s1</selector><result>pass</result></dkim>
      <dkim><domain>esp.example</domain><selector>k</selector><result>permerror</result></dkim>
      <spf><domain>bounce.acme.example</domain><result>none</result></spf>
    </auth_results>
  </record>
  <record>
    <row>
      <source_ip>192.0.2.10</source_ip>
      <count>5</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated>
    </row>
    <identifiers><header_from>acme.example</header_from></identifiers>
    <auth_results><spf><domain>bounce.acme.example</domain><result>none</result></spf></auth_results>
  </record>
</feedback>
"#;

/// The form of RFC 9990: its namespace, the generator, testing and discovery_method, the disposition `pass`.
pub const RFC9990: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">
  <version>1.0</version>
  <report_metadata>
    <org_name>Sample Reporter</org_name>
    <email>report_sender@example-reporter.com</email>
    <extra_contact_info>...</extra_contact_info>
    <report_id>3v98abbp8ya9n3va8yr8oa3ya</report_id>
    <date_range>
      <begin>302832000</begin>
      <end>302918399</end>
    </date_range>
    <generator>Example DMARC Aggregate Reporter v1.2</generator>
  </report_metadata>
  <policy_published>
    <domain>example.com</domain>
    <p>quarantine</p>
    <sp>none</sp>
    <np>none</np>
    <testing>n</testing>
    <discovery_method>treewalk</discovery_method>
  </policy_published>
  <record>
    <row>
      <source_ip>192.0.2.123</source_ip>
      <count>123</count>
      <policy_evaluated>
        <disposition>pass</disposition>
        <dkim>pass</dkim>
        <spf>fail</spf>
      </policy_evaluated>
    </row>
    <identifiers>
      <envelope_from>example.com</envelope_from>
      <header_from>example.com</header_from>
    </identifiers>
    <auth_results>
      <dkim>
        <domain>example.com</domain>
        <result>pass</result>
        <selector>abc123</selector>
      </dkim>
      <spf>
        <domain>example.com</domain>
        <result>fail</result>
      </spf>
    </auth_results>
  </record>
</feedback>
"#;

/// The example of RFC 8460 appendix B, with other addresses.
pub const TLS: &str = r#"{
  "organization-name": "Company-X",
  "date-range": {
    "start-datetime": "2026-11-23T00:00:00Z",
    "end-datetime": "2026-11-23T23:59:59Z"
  },
  "contact-info": "sts-reporting@company-x.example",
  "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
  "policies": [{
    "policy": {
      "policy-type": "sts",
      "policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
      "policy-domain": "Company-Y.example",
      "mx-host": ["*.mail.company-y.example"]
    },
    "summary": {
      "total-successful-session-count": 5326,
      "total-failure-session-count": 303
    },
    "failure-details": [{
      "result-type": "certificate-expired",
      "sending-mta-ip": "2001:db8:abcd:0012::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example",
      "failed-session-count": 100
    }, {
      "result-type": "starttls-not-supported",
      "sending-mta-ip": "2001:db8:abcd:0013::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example",
      "receiving-ip": "203.0.113.56",
      "failed-session-count": 200,
      "additional-information": "https://reports.company-x.example/report_info ? id = 5065427 c - 23 d3# StarttlsNotSupported"
    }, {
      "result-type": "validation-failure",
      "sending-mta-ip": "198.51.100.62",
      "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example",
      "failed-session-count": 3,
      "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
    }]
  }]
}"#;

/// Google's form of a TLS report: a policy that does not fail, and one without a policy; mx-host as a text.
pub const TLS_GOOGLE: &str = r#"{"organization-name":"Google Inc.","date-range":{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"},
"contact-info":"smtp-tls-reporting@google.com","report-id":"2026-11-23T00:00:00Z_acme.example","policies":[
{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce","mx: mx.acme.example","max_age: 604800"],"policy-domain":"acme.example","mx-host":"mx.acme.example"},
"summary":{"total-successful-session-count":"14","total-failure-session-count":0}},
{"policy":{"policy-type":"no-policy-found","policy-domain":"bounce.acme.example"},"summary":{"total-successful-session-count":2,"total-failure-session-count":null}}]}"#;
