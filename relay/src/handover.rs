//! From an outbox to the queues of destinations, waiting where a queue that blocks is full.

use std::sync::Arc;

use relay_engine::Outbox;

use crate::destinations::Producer;
use crate::destinations::queue::Loss;
use crate::plan::Plan;
use crate::worker::{Bench, Phase};

/// Lines on their way to queues: those of one connection, or of aggregators.
#[derive(Default)]
pub(crate) struct Handover {
    // Lines that had no room in queues that block.
    waiting: Vec<Waiting>,
}

struct Waiting {
    producer: Arc<Producer>,
    lines: Vec<u8>,
}

impl Handover {
    /// Gives queues what they take at once. What is left waits for [`Handover::wait_for_room`].
    pub(crate) fn hand_over(&mut self, plan: &Plan, outbox: &mut Outbox) {
        outbox.drain(|lane, lines, count| {
            let producer = plan.producer(lane);
            let unplaced = producer.push(lines, count);
            if unplaced > 0 {
                let producer = Arc::clone(producer);
                let lines = lines[lines.len() - unplaced..].to_vec();
                self.waiting.push(Waiting { producer, lines });
            }
        });
    }

    /// Waits until every queue that blocks has taken its lines.
    pub(crate) async fn wait_for_room(&mut self, bench: &Bench) {
        self.wait_until(bench, std::future::pending()).await;
    }

    /// Does so until `deadline` resolves. What had no room by then is dropped, as lines for a full queue are.
    pub(crate) async fn wait_until(&mut self, bench: &Bench, deadline: impl Future<Output = ()>) {
        let mut deadline = std::pin::pin!(deadline);
        let mut is_over = false;
        for Waiting { producer, lines } in self.waiting.drain(..) {
            let mut rest = lines.as_slice();
            tokio::select! {
                biased;
                () = producer.push_all(&mut rest) => {}
                () = &mut deadline, if !is_over => {
                    is_over = true;
                    producer.give_up_offered(rest, Loss::QueueFull);
                }
                () = std::future::ready(()), if is_over => producer.give_up_offered(rest, Loss::QueueFull),
                () = producer.removed() => producer.give_up_offered(rest, Loss::Removed),
                () = bench.reached(Phase::GivingUp) => producer.give_up_offered(rest, Loss::Shutdown),
            }
        }
    }
}
