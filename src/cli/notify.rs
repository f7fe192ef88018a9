//! What systemd is told of the process (`Type=notify`), where it asks to be told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::Server;

/// The gateway takes connections.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What `systemctl status` shows.
pub(super) fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The gateway takes no more connections.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("ends what is under way")]);
}

/// Another process is the gateway from now on.
pub(super) fn main_process(pid: u32) {
    send(&[NotifyState::MainPid(pid)]);
}

/// Says again and again that all workers are alive, as `WatchdogSec=` asks, until the process is `stopping`; returns at
/// once if it does not ask.
pub(super) async fn watchdog(server: &Server, stopping: &AtomicBool) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    loop {
        let alive = server.is_alive(within / 2).await;
        // Its workers end then, and systemd looks at how long that takes.
        if stopping.load(Ordering::Relaxed) {
            return;
        }
        if alive {
            send(&[NotifyState::Watchdog]);
        } else {
            log::error!("a worker does not answer; systemd is told nothing until it does");
        }
        tokio::time::sleep((within / 3).max(Duration::from_millis(10))).await;
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd cannot be told: {error}");
    }
}
