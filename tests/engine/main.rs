//! The engine by its public interface. One program for many files: each program would build and link the engine and
//! what the tests share once more. What needs a process of its own (an allocator, a subscriber, limits) is a program
//! of its own, in the directory above.

mod brokers_batches;
mod end_of_log;
mod everything;
mod fixtures;
mod from_anywhere;
mod housekeeping;
mod inspect;
mod judgement;
mod killed;
mod known_end;
mod log;
mod one_writer;
mod other_files;
mod out_of_order;
mod poll_descriptor;
mod store_files;
mod stress;
mod time;
mod two_processes;
mod unflushed;
mod unreadable_segments;
mod wrong_names;
