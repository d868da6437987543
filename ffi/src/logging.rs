//! What the engine noticed, for the host's own log: one callback for the process.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::abi::edgelog_bytes;
use crate::boundary::answer;
use crate::result::{Failure, edgelog_result};
use crate::types::unknown;

/// Level: records or durability are at stake.
pub const EDGELOG_LOG_ERROR: i32 = 1;
/// Level: something was not as it should be, and was dealt with.
pub const EDGELOG_LOG_WARN: i32 = 2;
/// Level: what happens now and then, such as a segment deleted by retention.
pub const EDGELOG_LOG_INFO: i32 = 3;
/// Level: what helps to understand.
pub const EDGELOG_LOG_DEBUG: i32 = 4;

/// Gets what the library noticed: the level and one line of text, which lives for the call. It may come from any
/// thread, also out of a call that this program makes, and must return.
pub type edgelog_log_callback = Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, text: edgelog_bytes)>;

#[derive(Clone, Copy)]
struct Target {
    callback: unsafe extern "C" fn(*mut c_void, i32, edgelog_bytes),
    user_data: *mut c_void,
    level_max: i32,
}

// SAFETY: the pointer is C's and only handed back to it; that it may come from any thread is in the header.
unsafe impl Send for Target {}

static TARGET: Mutex<Option<Target>> = Mutex::new(None);
static INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// A callback is running on this thread: what its own calls notice is not reported to it.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

/// From now on the library calls `callback` with what it notices, up to `level_max` (EDGELOG_LOG_...). It replaces the
/// one before; NULL ends the calls. On return, the one before may still be running on another thread. One callback
/// serves the whole process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_set_log_callback(
    callback: edgelog_log_callback,
    user_data: *mut c_void,
    level_max: i32,
) -> edgelog_result {
    answer(|| {
        if !(EDGELOG_LOG_ERROR..=EDGELOG_LOG_DEBUG).contains(&level_max) {
            return Err(unknown("level_max", level_max));
        }
        let target = callback.map(|callback| Target { callback, user_data, level_max });
        *TARGET.lock().unwrap_or_else(PoisonError::into_inner) = target;
        if target.is_some() && !INSTALLED.swap(true, Ordering::AcqRel) {
            // Refused where this is linked into a Rust program that has a subscriber of its own.
            tracing::subscriber::set_global_default(ToCallback).map_err(|_| {
                let text = "this process has a tracing subscriber already, which gets everything";
                Failure::text(edgelog_result::EDGELOG_IN_USE, text.to_owned())
            })?;
        }
        Ok(())
    })
}

fn number(level: Level) -> i32 {
    match level {
        Level::ERROR => EDGELOG_LOG_ERROR,
        Level::WARN => EDGELOG_LOG_WARN,
        Level::INFO => EDGELOG_LOG_INFO,
        _ => EDGELOG_LOG_DEBUG,
    }
}

fn target() -> Option<Target> {
    *TARGET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine's events, as lines. It opens no spans.
struct ToCallback;

impl Subscriber for ToCallback {
    /// Asked again for each event: the level may change, and events are rare.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && target().is_some_and(|target| number(*metadata.level()) <= target.level_max)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(target) = target() else { return };
        if REPORTING.try_with(|reporting| reporting.replace(true)).unwrap_or(true) {
            return;
        }
        let mut line = Line { text: String::new(), fields: String::new() };
        event.record(&mut line);
        line.text.push_str(&line.fields);
        // SAFETY: C vouches for the callback for as long as it is set (README.md, 12).
        unsafe {
            (target.callback)(
                target.user_data,
                number(*event.metadata().level()),
                edgelog_bytes::of(line.text.as_bytes()),
            );
        }
        let _ = REPORTING.try_with(|reporting| reporting.set(false));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message, and the fields behind it as `name=value`.
struct Line {
    text: String,
    fields: String,
}

impl Visit for Line {
    /// The engine reports no such numbers, and printing them takes 20 KiB of code.
    fn record_f64(&mut self, _: &Field, _: f64) {}

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
