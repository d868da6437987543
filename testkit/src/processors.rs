//! Work for all of the machine's processors.

/// Runs `work` once on each processor, with its number and with how many there are, and returns what each came to.
pub fn on_every_processor<T: Send>(work: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let work = &work;
    std::thread::scope(|scope| {
        let begun: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n, count))).collect();
        begun.into_iter().map(|thread| thread.join().expect("the work does not panic")).collect()
    })
}
