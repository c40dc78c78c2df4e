//! Certificates that are not taken: one line that says what to do, on the caller's side and on the called one's.

use bytes::Bytes;

use super::{
    Dialer, Limits, Reason, Service, Tls,
    testing::{Cluster, Listening, PATIENCE, until},
};
use crate::{
    core::model::{NodeId, UnixMillis},
    runtime::trust::Credentials,
};

/// Who calls whom, what the caller reads, and what the called node counts and logs.
struct Case {
    called: Credentials,
    caller: Credentials,
    asked_for: u64,
    caller_reads: &'static str,
    called_counts: Reason,
}

#[tokio::test]
async fn whose_certificate_is_not_taken_and_who_does_not_take_it_are_each_told_in_one_line() {
    let (ours, other) = (Cluster::new(1), Cluster::new(2));
    let run_out = |node| ours.credentials_at(node, UnixMillis(0));
    let foreign_caller = Credentials {
        ca_cert_der: ours.ca.cert_der.clone(),
        ..Cluster::new(1).credentials(5)
    };
    let cases = [
        Case {
            called: run_out(2),
            caller: ours.credentials(5),
            asked_for: 2,
            caller_reads: "is not valid now: check the clocks",
            called_counts: Reason::RefusedByCaller,
        },
        Case {
            called: ours.credentials(2),
            caller: run_out(5),
            asked_for: 2,
            caller_reads: "refuses this node's certificate",
            called_counts: Reason::CertificateNotValidNow,
        },
        Case {
            called: other.credentials(2),
            caller: ours.credentials(5),
            asked_for: 2,
            caller_reads: "is of another cluster",
            called_counts: Reason::RefusedByCaller,
        },
        Case {
            called: ours.credentials(2),
            caller: foreign_caller,
            asked_for: 2,
            caller_reads: "refuses this node's certificate",
            called_counts: Reason::ForeignCertificate,
        },
        Case {
            called: ours.credentials(2),
            caller: ours.credentials(5),
            asked_for: 3,
            caller_reads: "is not the node that was asked for: its address is out of date",
            called_counts: Reason::RefusedByCaller,
        },
    ];

    for case in cases {
        let called = Tls::new(&case.called).unwrap();
        let called = Listening::echo(called, Limits::default()).await;
        let caller = Dialer::new(Tls::new(&case.caller).unwrap(), &Limits::default());

        let (asked_for, empty) = (NodeId(case.asked_for), Bytes::new());
        let answer = caller
            .call(asked_for, called.addr, Service::Raft, empty, PATIENCE)
            .await;

        let line = answer.unwrap_err().to_string();
        assert!(line.contains(case.caller_reads), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        let counted = || called.tls.stats().refused;
        until(|| counted().get(&case.called_counts) == Some(&1)).await;
        assert_eq!(counted().len(), 1, "{:?}", counted());
        let advice = case.called_counts.advice().unwrap();
        assert_eq!(advice.lines().count(), 1, "{advice}");
    }
}
