//! Cluster files: what is written reads back, and nothing that is read brings the reader down.

use std::sync::Arc;

use proptest::prelude::*;
use watchpost::model::cluster_file::{parse, render};
use watchpost::model::{Configuration, ConfigurationId};
use watchpost::plan::{PortRules, validate};

use crate::any;

fn id() -> ConfigurationId {
    ConfigurationId::new("c").unwrap()
}

/// What a text of our own says; that it cannot be read is a failure.
fn read_back(text: &str) -> Result<Configuration, TestCaseError> {
    parse("c.cfg", text, id(), "host").map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))
}

/// As a file tells it: sorted, and without the addresses of instances that are not dialled.
fn canonical(mut subject: Configuration) -> Configuration {
    for instance in subject.instances.iter_mut().filter(|instance| instance.port.is_none()) {
        instance.host = None;
    }
    subject.instances.sort_by(|a, b| a.name.cmp(&b.name));
    subject.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    subject
}

proptest! {
    #[test]
    fn a_configuration_reads_back_as_it_was_written(mut subject in any::named()) {
        // Clashes and other reasons to complain can be written, but a port 0 cannot.
        for node in subject.nodes.iter_mut().map(Arc::make_mut) {
            node.port = node.port.filter(|&port| port != 0);
            node.metrics_port = node.metrics_port.filter(|&port| port != 0);
        }
        prop_assert_eq!(read_back(&render(&subject))?, canonical(subject));
    }

    #[test]
    fn what_was_read_is_written_the_same_ever_after(subject in any::configuration()) {
        if let Ok(read) = parse("c.cfg", render(&subject), id(), "host") {
            let once = render(&read);
            prop_assert_eq!(render(&read_back(&once)?), once);
        }
    }

    #[test]
    fn whatever_validation_lets_pass_can_be_written(subject in prop_oneof![any::configuration(), any::named()]) {
        if validate(&subject, &PortRules::default()).is_empty() {
            prop_assert_eq!(read_back(&render(&subject))?, canonical(subject));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse("c.cfg", bytes, id(), "host");
    }

    #[test]
    fn anything_like_a_cluster_file_is_read_or_refused(
        lines in prop::collection::vec(
            prop_oneof![
                "\\[[a-z]{0,3}\\]?",
                " {0,2}(instance|role|type|port|env|command|ready|restart|stop_grace|instances)( ?[=:] ?\\PC{0,10})?",
                "\\PC{0,20}",
            ],
            0..20,
        ),
        hostname in "\\PC{0,10}",
    ) {
        let text = lines.join("\n");
        if let Err(error) = parse("c.cfg", &text, id(), &hostname) {
            prop_assert!(!error.complaints.is_empty());
            let mut numbers = error.complaints.iter().map(|complaint| complaint.line);
            prop_assert!(numbers.all(|number| (1..=lines.len().max(1)).contains(&number)));
        }
    }
}
