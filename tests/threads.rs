//! Tasks to threads: each runs once, and neither a panic, an interrupt nor a busy pool does any harm.

use softxent::error::Error;
use softxent::threads::{Lines, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[test]
fn every_task_runs_once_whatever_the_number_of_threads() {
    for threads in [1, 2, 3, 7, 64] {
        let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        let work = |task: usize| {
            counts[task].fetch_add(1, Ordering::Relaxed);
        };
        run(counts.len(), threads, &work, &mut || false).unwrap();
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn a_panic_in_a_task_is_an_error_and_the_next_call_works() {
    let work = |task: usize| assert!(task != 5, "five");
    for threads in [1, 4] {
        let result = run(100, threads, &work, &mut || false);
        assert_eq!(result, Err(Error::Panic(String::from("five"))));
        assert_eq!(run(5, threads, &work, &mut || false), Ok(()));
    }
}

#[test]
fn an_interrupt_ends_the_call_before_the_tasks_run_out() {
    let done = AtomicUsize::new(0);
    let work = |_: usize| {
        done.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(run(10_000, 2, &work, &mut || true), Err(Error::Interrupted));
    assert!(done.load(Ordering::Relaxed) < 1000);
}

#[test]
fn a_small_call_does_not_wait_for_a_pool_that_is_busy() {
    let slow = |_: usize| std::thread::sleep(Duration::from_millis(500));
    std::thread::scope(|scope| {
        scope.spawn(|| run(2, 2, &slow, &mut || false));
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        run(8, 2, &|_| (), &mut || false).unwrap();
        assert!(start.elapsed() < Duration::from_millis(250));
    });
}

#[test]
fn the_parts_of_a_line_are_done_in_their_order_whoever_does_them() {
    let (lines, parts) = (3, 200);
    for threads in [1, 2, 7] {
        let order = Lines::new(lines);
        let done: Vec<Mutex<Vec<usize>>> = (0..lines).map(|_| Mutex::default()).collect();
        let work = |task: usize| {
            let (part, line) = (task / lines, task % lines);
            let turn = order.turn(line, part);
            turn.wait();
            done[line].lock().unwrap().push(part);
        };
        run(lines * parts, threads, &work, &mut || false).unwrap();
        for line in done {
            assert!(line.into_inner().unwrap().into_iter().eq(0..parts));
        }
    }
}

#[test]
fn nobody_waits_for_a_part_that_panicked() {
    for waits_first in [true, false] {
        let order = Lines::new(1);
        let work = |part: usize| {
            let turn = order.turn(0, part);
            if waits_first {
                turn.wait();
            }
            assert!(part != 5, "five");
            turn.wait();
        };
        assert_eq!(run(100, 4, &work, &mut || false), Err(Error::Panic(String::from("five"))));
    }
}
