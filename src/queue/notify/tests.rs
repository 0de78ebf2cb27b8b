use super::*;
use crate::store::{Envelope, EnvelopeRecipient, Via};
use crate::types::{Class, DeliveryId, Mailbox, Ret, ReversePath};

const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);

fn original(reverse_path: ReversePath, notify: [Notify; 2]) -> StoredMessage {
    let recipient = |text: &str, notify| EnvelopeRecipient {
        mailbox: Mailbox::parse(text).expect("valid"),
        notify,
        orcpt: Some("rfc822;x@y".into()),
    };
    StoredMessage {
        envelope: Envelope {
            id: MessageId::new(NOW, 1),
            tenant: Name::parse("acme").expect("valid"),
            class: Class::Marketing,
            campaign: Some(Name::parse("spring").expect("valid")),
            tags: Vec::new(),
            metadata: None,
            reverse_path,
            ret: Some(Ret::Headers),
            envid: Some("env+2B1".into()),
            recipients: vec![recipient("b@sink.test", notify[0]), recipient("c@sink.test", notify[1])],
            accepted: NOW,
            expires: NOW,
            smtputf8: false,
            eight_bit: false,
            from_domain: None,
            via: Via::Smtp,
            client: None,
        },
        body: "Subject: x\r\n\r\nx\r\n".into(),
    }
}

fn sender() -> ReversePath {
    ReversePath::Mailbox(Mailbox::parse("a@acme.example").expect("valid"))
}

fn told(index: u32, action: Action) -> Told<'static> {
    Told { index, action, reply: None, remote: true, host: None, last_attempt: None }
}

fn compose_for(message: &StoredMessage, outcomes: &[Told<'_>]) -> Option<NewMessage> {
    let config = Config { hostname: "mta1.example.com".into(), ..Config::default() };
    compose(message, outcomes, NOW, &config, 2)
}

#[test]
fn a_failure_makes_a_message_of_its_own() {
    let message = original(sender(), [Notify::Default, Notify::Never]);
    let new = compose_for(&message, &[told(0, Action::Failed), told(1, Action::Failed)]).expect("owed");
    let envelope = &new.message.envelope;
    assert_eq!(envelope.reverse_path, ReversePath::Null);
    assert_eq!(envelope.recipients[0].mailbox.as_str(), "a@acme.example");
    assert_eq!(envelope.recipients[0].notify, Notify::Never);
    assert_eq!(new.deliveries[0].queue.to_string(), "acme/default/transactional/-/acme.example");
    assert_eq!(new.deliveries[0].entry.key.delivery, DeliveryId { message: envelope.id, index: 0 });
    assert_ne!(envelope.id, message.envelope.id);
    assert_eq!(new.event.via.as_deref(), Some("internal"));
    let text = String::from_utf8_lossy(&new.message.body);
    assert!(text.contains("Original-Envelope-Id: env+1\r\n") && text.contains("Original-Recipient: rfc822; x@y\r\n"));
    // NOTIFY=NEVER of the second keeps it out of the report on the first.
    assert!(text.contains("b@sink.test") && !text.contains("c@sink.test"), "{text}");
}

#[test]
fn nobody_is_told_who_did_not_ask() {
    let all = Notify::On { success: true, failure: true, delay: true };
    let check = |reverse_path, notify, action, want: bool| {
        let message = original(reverse_path, [notify, Notify::Never]);
        assert_eq!(compose_for(&message, &[told(0, action)]).is_some(), want, "{notify:?} {action:?}");
    };
    check(ReversePath::Null, all, Action::Failed, false);
    check(sender(), Notify::Never, Action::Failed, false);
    check(sender(), Notify::Default, Action::Delayed, true);
    check(sender(), Notify::Default, Action::Relayed, false);
    check(sender(), Notify::On { success: true, failure: false, delay: false }, Action::Failed, false);
    check(sender(), all, Action::Relayed, true);
    assert_eq!(on_delivery(all, true), None);
    assert_eq!(on_delivery(all, false), Some(Action::Relayed));
    assert_eq!(on_delivery(Notify::Default, false), None);
}

#[test]
fn a_report_on_a_report_is_never_made() {
    let message = original(sender(), [Notify::Default; 2]);
    let report = compose_for(&message, &[told(0, Action::Failed)]).expect("owed");
    assert!(compose_for(&report.message, &[told(0, Action::Failed)]).is_none());
}
