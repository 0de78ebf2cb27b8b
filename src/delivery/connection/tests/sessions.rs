//! Sessions once they are open: jobs in flight, drops and refusals at each phase, what the peer lacks, idling and the end.

use super::*;

#[test]
fn many_jobs_over_one_connection_by_each_way() {
    for offer in [&[][..], &["PIPELINING"], &["PIPELINING", "CHUNKING"], &["CHUNKING"]] {
        let scene = Scene::new(Some(Script::new(offer)), None).jobs(jobs(20)).run();
        scene.check(&["250"; 20].join(" "));
        assert_eq!(scene.failure(), None, "{offer:?}");
        assert_eq!(scene.commands("QUIT"), 1, "{offer:?}");
        assert_eq!(scene.seen.connects.borrow().len(), 1);
        let messages = scene.seen.messages.borrow();
        assert_eq!(messages.len(), 20);
        let want: &[u8] = if offer.contains(&"CHUNKING") {
            b"DKIM-Signature: v=1\r\nSubject: x\r\n\r\n.hello\r\n"
        } else {
            b"DKIM-Signature: v=1\r\nSubject: x\r\n\r\n..hello\r\n.\r\n"
        };
        assert!(messages.iter().all(|m| m == want), "{offer:?}: {messages:?}");
    }
}

#[test]
fn a_message_costs_one_write_or_less() {
    for (offer, most) in [(&["PIPELINING"][..], 101), (&["PIPELINING", "CHUNKING"], 101)] {
        let scene = Scene::new(Some(Script::new(offer)), None).jobs(jobs(100)).run();
        // Besides the messages: EHLO, QUIT, and the first envelope alone.
        let writes = scene.seen.writes.get();
        assert!(writes <= most + 3, "{offer:?}: {writes} writes for 100 messages");
    }
}

#[test]
fn a_drop_or_421_at_each_phase_settles_every_job_once() {
    for offer in [&[][..], &["PIPELINING"], &["PIPELINING", "CHUNKING"]] {
        for phase in ["EHLO", "MAIL", "RCPT", "DATA", ".", "BDAT", "QUIT"] {
            for reply in [DROP, "421 4.3.2 shutting down"] {
                let script = Script::new(offer).when(phase, reply);
                let script = if phase == "EHLO" { script.when("HELO", reply) } else { script };
                let scene = Scene::new(Some(script), None).jobs(jobs(6)).run();
                let harmless = phase == "QUIT"
                    || (phase == "BDAT" && !offer.contains(&"CHUNKING"))
                    || (matches!(phase, "DATA" | ".") && offer.contains(&"CHUNKING"));
                if harmless {
                    scene.check("250 250 250 250 250 250");
                } else if phase == "EHLO" {
                    assert_eq!(scene.queue.given.get(), 0, "no job for a host that is not ready");
                    assert_eq!(scene.queue.made.get(), 0, "nothing rendered for it");
                    assert!(scene.failure().is_some());
                } else {
                    let first = scene.outcomes();
                    let want = if reply == DROP { "0" } else { "421" };
                    assert!(first.starts_with(want), "{offer:?} {phase} {reply}: {first}");
                    let ambiguous = scene.queue.reports.borrow().iter().any(|r| r.ambiguous);
                    let silent_end = reply == DROP && (matches!(phase, "." | "BDAT") || offer.contains(&"CHUNKING"));
                    assert_eq!(ambiguous, silent_end, "{offer:?} {phase} {reply}: {first}");
                    assert!(scene.failure().is_some(), "{offer:?} {phase} {reply}");
                }
            }
        }
    }
}

#[test]
fn jobs_behind_a_421_were_not_tried() {
    let script = Script::new(&["PIPELINING"]).when("RCPT", "421 4.7.0 enough");
    let scene = Scene::new(Some(script), None).jobs(jobs(5)).run();
    // One was tried, two more were made ahead, two never left the queue.
    scene.check("421 421~ 421~".replace("421~", "0~").as_str());
    assert_eq!(scene.queue.jobs.borrow().len(), 2);
}

#[test]
fn partial_refusals_are_per_recipient() {
    for offer in [&[][..], &["PIPELINING"], &["PIPELINING", "CHUNKING"]] {
        let script = Script::new(offer)
            .when("RCPT TO:<bad", "550 5.1.1 unknown")
            .when("RCPT TO:<full", "452 4.2.2 full")
            .when("RCPT TO:<many", "552 too many");
        let recipients = ["a@r.example", "bad@r.example", "full@r.example", "many@r.example", "z@r.example"];
        let none = ["bad@r.example", "full@r.example"];
        let all = vec![job(0, &recipients), job(1, &none), job(2, &["b@r.example"])];
        let scene = Scene::new(Some(script), None).jobs(all).run();
        scene.check("250,550!,452,552,250 550!,452 250");
    }
}

#[test]
fn a_host_that_does_not_know_its_own_chunking_gets_data() {
    let script = Script::new(&["PIPELINING", "CHUNKING"]).when("BDAT", "502 what");
    let scene = Scene::new(Some(script), None).jobs(jobs(1));
    let connector = scene.connector();
    on_thread(scene.connection_of(connector.clone()));
    scene.queue.jobs.borrow_mut().push_back(job(1, &["b@r.example"]));
    on_thread(scene.connection_of(connector));
    scene.check("502 250");
    assert_eq!((scene.commands("BDAT"), scene.commands("DATA")), (1, 1));
}

#[test]
fn what_the_peer_lacks_fails_without_being_sent() {
    // SIZE, before and after signing.
    let script = || Some(Script::new(&["SIZE 30", "PIPELINING"]));
    let mut large = job(0, &["b@r.example"]);
    large.size = 31;
    let scene = Scene::new(script(), None).jobs(vec![large, job(1, &["b@r.example"])]).run();
    scene.check("552! 552!");
    assert_eq!((scene.queue.made.get(), scene.commands("MAIL")), (1, 0));
    // 8BITMIME.
    let scene = Scene::new(Some(Script::new(&[])), None).jobs(jobs(1));
    scene.queue.eight_bit.set(true);
    let scene = scene.run();
    let report = scene.queue.reports.borrow()[0].clone();
    let Outcome::Failed(failure) = &report.outcomes[0] else { panic!("sent") };
    assert_eq!(failure.reply.enhanced.as_deref(), Some("5.6.3"));
    // SMTPUTF8: the recipient who needs it fails, the others get the mail; a message that needs it fails as a whole.
    let mut utf8 = job(1, &["b@r.example"]);
    utf8.smtputf8 = true;
    let mixed = job(0, &["jörg@r.example", "b@r.example"]);
    let scene = Scene::new(Some(Script::new(&["PIPELINING"])), None).jobs(vec![mixed.clone(), utf8.clone()]).run();
    scene.check("553!,250 553!");
    let scene = Scene::new(Some(Script::new(&["SMTPUTF8"])), None).jobs(vec![mixed, utf8]).run();
    scene.check("250,250 250");
    assert_eq!(scene.commands("MAIL FROM:<a@s.example> SMTPUTF8"), 2);
}

#[test]
fn limits_of_rfc_9422_are_obeyed() {
    let recipients = ["a@r.example", "b@r.example", "c@t.example", "d@t.example", "e@t.example"];
    let script = |offer| Some(Script::new(offer).when("RCPT TO:<c", "550 no"));
    let scene = Scene::new(script(&["PIPELINING", "LIMITS RCPTMAX=2"]), None).jobs(vec![job(0, &recipients)]).run();
    scene.check("250,250,550!,250,250");
    assert_eq!(scene.commands("MAIL"), 3);
    let scene = Scene::new(script(&["LIMITS RCPTDOMAINMAX=1"]), None).jobs(vec![job(0, &recipients)]).run();
    scene.check("250,250,550!,250,250");
    assert_eq!(scene.commands("MAIL"), 2);
    let scene = Scene::new(script(&["PIPELINING", "LIMITS MAILMAX=3"]), None).jobs(jobs(5)).run();
    scene.check("250 250 250");
    assert_eq!(scene.commands("QUIT"), 1);
}

#[test]
fn idle_connections_wait_and_wake() {
    let scene = Scene::new(Some(Script::new(&["PIPELINING"])), None).jobs(jobs(1));
    let queue = scene.queue.clone();
    let connection = scene.connection();
    on_thread(async move {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            queue.jobs.borrow_mut().push_back(job(1, &["c@r.example"]));
            queue.wake.notify_one();
        });
        connection.await;
    });
    let scene = scene.checked();
    scene.check("250 250");
    assert_eq!((scene.seen.connects.borrow().len(), scene.commands("QUIT")), (1, 1));
    assert_eq!(scene.failure(), None);
}

#[test]
fn shutdown_finishes_and_gives_back() {
    let scene = Scene::new(Some(Script::new(&[])), None).jobs(jobs(4));
    scene.queue.stuck.set(true);
    let connection = scene.connection();
    let stop = scene.stop.clone();
    on_thread(async move {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let _ = stop.send(true);
        });
        connection.await;
    });
    let scene = scene.checked();
    scene.check("0~");
    assert_eq!(scene.commands("QUIT"), 1);
}

#[test]
fn a_dropped_task_still_reports() {
    let scene = Scene::new(Some(Script::new(&["PIPELINING"])), None).jobs(jobs(4));
    scene.queue.stuck.set(true);
    let connection = scene.connection();
    on_thread(async move {
        let _ = tokio::time::timeout(Duration::from_millis(10), connection).await;
    });
    scene.checked().check("0~ 0~");
}

#[test]
fn a_watcher_sees_the_session_of_its_domain() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
    let scene = Scene::new(Some(Script::new(&["PIPELINING"])), None).jobs(jobs(1));
    assert!(scene.trace.watch(crate::types::Domain::parse("r.example").expect("a domain"), sender));
    let scene = scene.run();
    assert!(!scene.trace.is_active(), "the watch is for one session");
    drop(scene);
    let mut lines = Vec::new();
    while let Ok(line) = receiver.try_recv() {
        lines.push(line);
    }
    assert_eq!(lines.first().map(String::as_str), Some("< 220 mx"));
    assert!(lines.contains(&"> RCPT TO:<b@r.example>".to_owned()), "{lines:?}");
    assert!(lines.contains(&"> QUIT".to_owned()), "{lines:?}");
}

#[test]
fn a_peer_that_leaves_before_any_mail_is_a_failed_host() {
    // It greets, offers, and closes while the content is made: no job is charged, and the host is not just asked again.
    let mut script = Script::new(&["PIPELINING"]);
    script.leaves = true;
    for given in [0, 3] {
        let scene = Scene::new(Some(script.clone()), None).jobs(jobs(given));
        scene.queue.stuck.set(true);
        let scene = scene.run();
        assert!(scene.outcomes().split_whitespace().all(|o| o == "0~"), "{}", scene.outcomes());
        let failure = scene.failure().expect("a failure");
        assert_eq!((failure.severity, failure.stage), (Severity::Temporary, "sending EHLO"));
        assert!(failure.reply.text.contains("before any mail"), "{}", failure.reply.text);
    }
}
