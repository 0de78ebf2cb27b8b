//! Alerts and reports on authentication: each key sees its own.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::json;

use super::world::*;
use crate::alert::{Alert, AlertName, AlertState};
use crate::feedback::auth::{DmarcPolicy, DmarcReport, DmarcRow};
use crate::inbound::reports::{ReportKind, day_prefix};
use crate::types::{Name, Timestamp};

fn alert(name: AlertName, tenant: Option<&str>) -> Alert {
    Alert {
        name,
        state: AlertState::Firing,
        subject: tenant.unwrap_or("node").into(),
        tenant: tenant.map(|t| Name::parse(t).expect("a name")),
        since: Timestamp::ZERO,
        told: None,
        summary: "s".into(),
        cause: "c".into(),
        fix: "f".into(),
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_alerts_and_the_node_all() {
    let w = World::new();
    let all = vec![
        alert(AlertName::BounceRate, Some("acme")),
        alert(AlertName::ComplaintRate, Some("other")),
        alert(AlertName::DiskFree, None),
    ];
    w.api.parts().alerts.store(Arc::new(all));
    let names = async |path: &str, key: &str| {
        let got = w.get(path, Some(key)).await.json;
        let alerts = got["alerts"].as_array().expect("a list").clone();
        alerts.iter().map(|a| a["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/v1/alerts", NODE_READ).await, ["bounce_rate", "complaint_rate", "disk_free"]);
    assert_eq!(names("/v1/alerts?tenant=other", ADMIN).await, ["complaint_rate"]);
    assert_eq!(names("/v1/alerts", ACME_READ).await, ["bounce_rate"]);
    assert_eq!(w.get("/v1/alerts?tenant=other", Some(ACME_READ)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(w.get("/v1/alerts", None).await.status, StatusCode::UNAUTHORIZED);
    let written =
        serde_json::to_value(Alert { told: Some(Timestamp::ZERO), ..alert(AlertName::BounceRate, Some("a")) });
    let mut written: Vec<String> = written.expect("JSON").as_object().expect("an object").keys().cloned().collect();
    let document = w.get("/v1/openapi.json", None).await.json;
    let named = document["components"]["schemas"]["Alert"]["properties"].as_object().expect("the schema");
    let mut named: Vec<String> = named.keys().cloned().collect();
    written.sort();
    named.sort();
    assert_eq!(written, named);
}

#[tokio::test]
async fn reports_of_the_days_asked_for_are_summed_up() {
    let w = World::new();
    let today = w.clock.now().day();
    let put = |day: u32, tenant: &str, domain: &str, count: u64| {
        let row = DmarcRow {
            source_ip: Some([192, 0, 2, 1].into()),
            count,
            disposition: "none".into(),
            dkim: false,
            spf: false,
            header_from: domain.into(),
            auth: Vec::new(),
            reason: None,
        };
        let report = DmarcReport {
            org: "google.com".into(),
            email: None,
            report_id: "1".into(),
            domain: domain.into(),
            begin: 0,
            end: 1,
            policy: DmarcPolicy { p: "none".into(), ..DmarcPolicy::default() },
            rows: vec![row],
            errors: Vec::new(),
        };
        let value = json!({ "v": 1, "tenant": tenant, "received": w.clock.now(), "report": report });
        let key = format!("{}{domain}{count}", day_prefix(ReportKind::Dmarc, day)).into_bytes();
        w.fake.memory.lock().state.insert(key, value.to_string().into_bytes());
    };
    put(today, "acme", "acme.example", 1);
    put(today - 6, "acme", "news.acme.example", 10);
    put(today - 40, "acme", "acme.example", 100);
    put(today, "other", "other.example", 1_000);
    w.fake.memory.lock().state.insert(day_prefix(ReportKind::Dmarc, today).into_bytes(), b"not readable".to_vec());
    let messages = async |query: &str, key: &str| {
        let got = w.get(&format!("/v1/auth-reports/dmarc{query}"), Some(key)).await.json;
        let domains = got["domains"].as_array().expect("a list").clone();
        domains.iter().map(|d| d["messages"].as_u64().unwrap_or(0)).collect::<Vec<_>>()
    };
    assert_eq!(messages("", NODE_READ).await, [1_000, 10, 1]);
    assert_eq!(messages("", ACME_READ).await, [10, 1], "another tenant's are not seen");
    assert_eq!(messages("?since=6d", ACME_READ).await, [1], "six days are today and five before");
    assert_eq!(messages("?since=60d", ACME_READ).await, [101, 10]);
    assert_eq!(messages("?domain=acme.example", NODE_READ).await, [10, 1]);
    assert_eq!(messages("?domain=news.acme.example", NODE_READ).await, [10]);
    assert_eq!(w.get("/v1/auth-reports/dmarc?since=500d", Some(ADMIN)).await.status.as_u16(), 422);
    assert_eq!(w.get("/v1/auth-reports/tls", Some(ADMIN)).await.json["domains"], json!([]));
}
