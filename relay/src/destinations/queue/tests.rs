use super::*;

fn queue(bytes_max: usize, when_full: WhenFull) -> Arc<Queue> {
    Arc::new(Queue::new(relay_engine::Queue {
        bytes_max,
        when_full,
    }))
}

fn lane(bytes_max: usize, when_full: WhenFull) -> Arc<Lane> {
    queue(bytes_max, when_full).add_lane()
}

impl Lane {
    fn figures(&self) -> Figures {
        self.queue().figures()
    }

    fn is_empty(&self) -> bool {
        self.queue().lock().lanes[&self.number()].chunks.is_empty()
    }
}

fn figures(offered: u64, sent: u64, full: u64, lines: u64, bytes: u64) -> Figures {
    let dropped = [full, 0, 0, 0];
    Figures {
        offered,
        sent_from_memory: sent,
        // Lines of the tests have six bytes.
        bytes_sent: sent * 6,
        dropped,
        queue_lines: lines,
        queue_bytes: bytes,
        lanes: 1,
        live: true,
        ..Figures::default()
    }
}

async fn take_all(lane: &Lane) -> String {
    let mut taken = VecDeque::new();
    assert!(lane.take(&mut taken, usize::MAX).await);
    while !lane.is_empty() {
        assert!(lane.take(&mut taken, usize::MAX).await);
    }
    let mut text = Vec::new();
    for chunk in taken {
        lane.sent(chunk.bytes.len(), chunk.lines, 0);
        text.extend_from_slice(&chunk.bytes);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn lines_come_out_as_they_went_in() {
    let lane = lane(100, WhenFull::DropNewest);
    assert_eq!(lane.push(b"a 1 1\nb 1 1\n", 2), 0);
    assert_eq!(lane.push(b"c 1 1\n", 1), 0);
    assert_eq!(lane.figures(), figures(3, 0, 0, 3, 18));
    assert_eq!(take_all(&lane).await, "a 1 1\nb 1 1\nc 1 1\n");
    assert_eq!(lane.figures(), figures(3, 3, 0, 0, 0));
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_lines_and_counts_them() {
    let lane = lane(15, WhenFull::DropNewest);
    assert_eq!(lane.push(b"a 1 1\nb 1 1\nc 1 1\nd 1 1\n", 4), 0);
    assert_eq!(lane.figures(), figures(4, 0, 2, 2, 12));
    assert_eq!(take_all(&lane).await, "a 1 1\nb 1 1\n");
}

#[tokio::test]
async fn lines_with_the_sender_still_count_as_queued() {
    let lane = lane(12, WhenFull::DropNewest);
    assert_eq!(lane.push(b"a 1 1\nb 1 1\n", 2), 0);
    let mut taken = VecDeque::new();
    assert!(lane.take(&mut taken, 1).await);
    assert_eq!(lane.push(b"c 1 1\n", 1), 0);
    assert_eq!(lane.figures(), figures(3, 0, 1, 2, 12));
    assert_eq!(lane.give_up(&mut taken, Loss::Shutdown), 2);
    assert_eq!(
        lane.figures(),
        Figures {
            dropped: [1, 0, 0, 2],
            ..figures(3, 0, 1, 0, 0)
        }
    );
}

#[tokio::test]
async fn a_full_queue_that_blocks_lets_lines_wait_and_loses_none() {
    let lane = lane(12, WhenFull::Block);
    assert_eq!(lane.push(b"a 1 1\nb 1 1\nc 1 1\n", 3), 6);
    let everything = async { lane.push_all(&mut &b"c 1 1\nd 1 1\ne 1 1\n"[..]).await };
    let taken = async {
        let mut text = take_all(&lane).await;
        text += &take_all(&lane).await;
        text += &take_all(&lane).await;
        text
    };
    let ((), taken) = tokio::join!(everything, taken);
    assert_eq!(taken, "a 1 1\nb 1 1\nc 1 1\nd 1 1\ne 1 1\n");
    assert_eq!(lane.figures(), figures(5, 5, 0, 0, 0));
}

#[tokio::test]
async fn one_line_fits_an_empty_queue_however_long_it_is() {
    let lane = lane(3, WhenFull::Block);
    assert_eq!(lane.push(b"a 1 1\nb 1 1\n", 2), 6);
    assert_eq!(take_all(&lane).await, "a 1 1\n");
}

#[tokio::test]
async fn a_closed_queue_ends_once_it_is_empty() {
    let lane = lane(100, WhenFull::Block);
    assert_eq!(lane.push(b"a 1 1\n", 1), 0);
    lane.close();
    assert_eq!(take_all(&lane).await, "a 1 1\n");
    assert!(!lane.take(&mut VecDeque::new(), 1).await);
}

#[tokio::test]
async fn a_full_queue_may_drop_the_oldest_lines() {
    let lane = lane(12, WhenFull::DropOldest);
    assert_eq!(lane.push(b"a 1 1\n", 1), 0);
    assert_eq!(lane.push(b"b 1 1\nc 1 1\n", 2), 0);
    assert_eq!(lane.push(b"d 1 1\ne 1 1\nf 1 1\n", 3), 0);
    assert_eq!(lane.figures(), figures(6, 0, 4, 2, 12));
    assert_eq!(take_all(&lane).await, "d 1 1\ne 1 1\n");
}

#[tokio::test]
async fn what_waits_for_too_long_or_is_too_much_goes_to_the_spool() {
    let lane = lane(400 << 10, WhenFull::Spool);
    lane.queue().set_spools(true);
    let block = "a 1 1\n".repeat((64 << 10) / 6);
    for _ in 0..3 {
        assert_eq!(lane.push(block.as_bytes(), 10922), 0);
    }
    let moving = lane.queue().take_overdue(Duration::from_secs(3600));
    assert_eq!(moving.chunks.len(), 0);
    assert_eq!(lane.push(block.as_bytes(), 10922), 0);
    lane.queue().crowded().await;
    let moving = lane.queue().take_overdue(Duration::from_secs(3600));
    assert_eq!(moving.chunks.len(), 3);
    let before = lane.figures();
    let spool = relay_spool::Figures {
        offered: 3 * 10922,
        waiting: 3 * 10922,
        ..relay_spool::Figures::default()
    };
    let (_, shares) = moving.split();
    lane.queue().moved_to_spool(shares, 3 * 10922, spool);
    let after = lane.figures();
    assert_eq!(before.queue_lines, after.queue_lines + after.spool.waiting);
    assert_eq!(lane.queue().take_overdue(Duration::ZERO).chunks.len(), 1);
}

#[tokio::test]
async fn what_is_stuck_with_a_sender_leaves_room_for_what_the_spool_takes() {
    // As small as they may be, and a line that is larger than what a sender takes.
    let lane = lane(64 << 10, WhenFull::Spool);
    lane.queue().set_spools(true);
    let line = |length: usize| format!("{} 1 1\n", "a".repeat(length - 5));
    let block = [line(40 << 10), line(10).repeat(30_000)].concat();
    let mut rest = block.as_bytes();
    let mut in_hand = VecDeque::new();
    let mut moved = 0;
    while !rest.is_empty() {
        let lines = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        rest = &rest[rest.len() - lane.push(rest, lines)..];
        if in_hand.is_empty() {
            assert!(lane.take(&mut in_hand, usize::MAX).await);
        }
        let moving = lane.queue().take_overdue(Duration::from_secs(3600));
        let (chunks, shares) = moving.split();
        let goes_on = rest.is_empty() || !chunks.is_empty();
        assert!(goes_on, "{} bytes wait for ever", rest.len());
        let lines = chunks.iter().map(|chunk| chunk.lines).sum();
        moved += lines;
        let spool = relay_spool::Figures::default();
        lane.queue().moved_to_spool(shares, lines, spool);
        assert!(lane.figures().queue_bytes <= 64 << 10);
    }
    let in_hand: u64 = in_hand.iter().map(|chunk| chunk.lines).sum();
    assert_eq!(moved + lane.figures().queue_lines, 30_001);
    assert!(in_hand < 5000, "{in_hand} lines are in hand");
}

#[tokio::test]
async fn without_a_spool_what_has_no_room_is_dropped() {
    let lane = lane(12, WhenFull::Spool);
    assert_eq!(lane.push(b"a 1 1\nb 1 1\nc 1 1\n", 3), 0);
    assert_eq!(lane.figures(), figures(3, 0, 1, 2, 12));
    lane.queue().set_spools(true);
    assert_eq!(lane.push(b"d 1 1\n", 1), 6);
}

#[tokio::test]
async fn lines_that_are_sent_again_come_first_and_are_counted() {
    let lane = lane(100, WhenFull::DropNewest);
    assert_eq!(lane.push(b"a 1 1\nb 1 1\n", 2), 0);
    let mut taken = VecDeque::new();
    assert!(lane.take(&mut taken, usize::MAX).await);
    lane.sent(12, 2, 0);
    assert_eq!(lane.push(b"c 1 1\n", 1), 0);
    lane.resend(taken);
    let before = lane.figures();
    assert_eq!(
        (before.offered, before.resent, before.queue_lines),
        (3, 2, 3)
    );
    assert_eq!(take_all(&lane).await, "a 1 1\nb 1 1\nc 1 1\n");
    assert_eq!((lane.figures().sent(), lane.figures().queue_lines), (5, 0));
}

async fn take_one(lane: &Lane) -> VecDeque<Chunk> {
    let mut taken = VecDeque::new();
    assert!(lane.take(&mut taken, 1).await);
    taken
}

#[tokio::test]
async fn lanes_have_shares_and_one_that_is_full_is_no_matter_to_others() {
    let queue = queue(200 << 10, WhenFull::DropNewest);
    let lanes = [queue.add_lane(), queue.add_lane()];
    let block = "a 1 1\n".repeat(20_000);
    assert_eq!(lanes[0].push(block.as_bytes(), 20_000), 0);
    let figures = queue.figures();
    assert_eq!(figures.queue_lines, (100 << 10) / 6);
    assert_eq!(figures.dropped[0], 20_000 - figures.queue_lines);
    assert_eq!(lanes[1].push(b"b 1 1\n", 1), 0);
    assert_eq!(take_all(&lanes[1]).await, "b 1 1\n");
    assert_eq!(queue.figures().sent(), 1);
}

#[tokio::test]
async fn a_lane_that_leaves_hands_over_what_waits_and_what_still_comes() {
    let queue = queue(1 << 20, WhenFull::DropNewest);
    let leaving = queue.add_lane();
    assert_eq!(leaving.push(b"a 1 1\n", 1), 0);
    let mut in_hand = take_one(&leaving).await;
    assert_eq!(leaving.push(b"b 1 1\n", 1), 0);
    let heir = queue.add_lane();
    leaving.leave();
    assert_eq!(leaving.push(b"c 1 1\n", 1), 0);
    assert!(!leaving.take(&mut VecDeque::new(), 1).await);
    leaving.put_back(in_hand.drain(..));
    let mut window = VecDeque::from([Chunk {
        bytes: Bytes::from_static(b"d 1 1\n"),
        lines: 1,
        spooled: None,
    }]);
    leaving.resend(std::mem::take(&mut window));
    drop(leaving);
    assert_eq!(take_all(&heir).await, "d 1 1\na 1 1\nb 1 1\nc 1 1\n");
    let figures = queue.figures();
    assert_eq!((figures.offered, figures.resent), (3, 1));
    assert_eq!((figures.sent(), figures.queue_lines), (4, 0));
    assert_eq!((figures.queue_bytes, figures.lanes), (0, 1));
}

#[tokio::test]
async fn who_waits_for_a_lane_that_leaves_finds_room_in_another() {
    let queue = queue(64 << 10, WhenFull::Block);
    let leaving = queue.add_lane();
    let block = "a 1 1\n".repeat((64 << 10) / 6);
    assert_eq!(leaving.push(block.as_bytes(), 10_922), 0);
    let mut rest = &b"b 1 1\n"[..];
    let waiting = async { leaving.push_all(&mut rest).await };
    let heir = queue.add_lane();
    let leave = async {
        leaving.leave();
        let first = take_all(&heir).await;
        assert_eq!(first.len(), block.len());
        take_all(&heir).await
    };
    let ((), last) = tokio::join!(waiting, leave);
    assert_eq!(last, "b 1 1\n");
}

#[tokio::test]
async fn what_moves_to_the_spool_from_a_lane_that_is_gone_is_counted_once() {
    let queue = queue(1 << 20, WhenFull::Spool);
    queue.set_spools(true);
    let gone = queue.add_lane();
    let _other = queue.add_lane();
    assert_eq!(gone.push(b"a 1 1\n", 1), 0);
    let (chunks, shares) = queue.take_overdue(Duration::ZERO).split();
    assert_eq!(chunks.len(), 1);
    gone.leave();
    drop(gone);
    queue.moved_to_spool(shares, 1, relay_spool::Figures::default());
    let figures = queue.figures();
    assert_eq!((figures.queue_lines, figures.queue_bytes), (0, 0));
}
