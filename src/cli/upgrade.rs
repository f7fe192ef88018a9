//! Upgrade: a new process takes the place of this one, and no connection is refused meanwhile.
//!
//! `SIGUSR2`, `POST /upgrade` at the admin interface and `portcullis upgrade` do the same. The binary at the path that
//! this one was started from (or `[server] binary`) is started with the same configuration file and is given the
//! listening sockets. It loads, checks and compiles the file, and takes connections besides this process. Once it
//! has done so for [`SETTLING`], this process stops accepting, ends what is under way and leaves. A new process that
//! does not come so far is ended, and this one goes on as if nothing had been.
//!
//! `SIGQUIT` does it with a process that was started by somebody else, by `portcullis run --upgrade`.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;

use super::notify;
use super::reload::{self, Running};
use super::run::End;
use crate::server::handover::{Channel, Inherited, Message};

/// How long the new process may take to load the configuration and to bind.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the new process must live before this one leaves.
const SETTLING: Duration = Duration::from_secs(2);
/// How often the new process is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How long the admin interface may take for its last answer.
pub(super) const LAST_ANSWER: Duration = Duration::from_secs(2);
/// How long one message may take.
const MESSAGE: Duration = Duration::from_secs(10);

/// Tells a process that its standard input is the channel to the one that it, or its child, is to replace.
const TAKE_OVER: &str = "PORTCULLIS_TAKE_OVER";
const AS_STARTER: &str = "starter";
const AS_CHILD: &str = "child";
/// Where a process that was started to take over waits, in the state directory.
const SOCKET: &str = "upgrade.sock";

/// What an upgrade did.
#[derive(Serialize)]
pub(super) struct Receipt {
    /// The new process.
    pid: u32,
    took_ms: f64,
}

impl Running {
    /// Starts the new process and lets it take over.
    ///
    /// # Errors
    /// Why it did not, in words; then nothing has changed.
    pub(super) fn upgrade(&self) -> Result<Receipt, String> {
        let Some(file) = &self.file else { return Err("error: the demo cannot be upgraded".to_owned()) };
        let (channel, end) = Channel::pair().map_err(|error| format!("error: cannot upgrade: {error}"))?;
        let start = || {
            let child = Command::new(&self.binary)
                .args(["run", "--config"])
                .arg(file)
                .env(TAKE_OVER, AS_STARTER)
                .env_remove("WATCHDOG_PID")
                .env_remove("LISTEN_FDNAMES")
                .stdin(Stdio::from(end))
                .process_group(0)
                .spawn();
            match child {
                Ok(child) => Ok(Starter::of(child)),
                Err(error) => Err(format!("error: cannot start {}: {error}", self.binary.display())),
            }
        };
        self.replace_process(&channel, start)
    }

    /// Lets a process take over that waits in the state directory.
    ///
    /// # Errors
    /// Why it did not, in words; then nothing has changed.
    pub(super) fn hand_over(&self) -> Result<Receipt, String> {
        let Some(state_dir) = &self.state_dir else {
            return Err("error: without [server] state_dir no other process can take over".to_owned());
        };
        let path = state_dir.path.join(SOCKET);
        let channel = Channel::connect(&path).map_err(|error| {
            format!("error: no process waits at {} (`portcullis run --upgrade`): {error}", path.display())
        })?;
        self.replace_process(&channel, || Ok(Starter::default()))
    }

    fn replace_process(
        &self,
        channel: &Channel,
        start: impl FnOnce() -> Result<Starter, String>,
    ) -> Result<Receipt, String> {
        let began = Instant::now();
        // What is given must not change under the successor's hands.
        let state = self.state.lock();
        if self.has_left.load(Ordering::Relaxed) {
            return Err("error: another process has already taken over".to_owned());
        }
        let mut starter = start()?;
        match self.see_through(channel, &mut starter) {
            Ok(pid) => {
                self.has_left.store(true, Ordering::Relaxed);
                drop(state);
                log::info!("the process {pid} has taken over");
                // Before this is answered: who asks next asks the successor.
                self.server.stop(self.grace, self.grace);
                if let Some(admin) = self.admin.get() {
                    admin.stop(LAST_ANSWER, Duration::ZERO);
                }
                let _ = self.end.send(End::HandedOver);
                Ok(Receipt { pid, took_ms: began.elapsed().as_secs_f64() * 1000.0 })
            }
            Err(why) => {
                let _ = channel.send(&Message::Failed(why.clone()), &[]);
                starter.end();
                if !is_closed_soon(channel) {
                    starter.end_all();
                }
                log::error!("no other process takes over, this one goes on: {why}");
                Err(why)
            }
        }
    }

    /// Gives the number of the process that has taken over.
    fn see_through(&self, channel: &Channel, starter: &mut Starter) -> Result<u32, String> {
        let broken = |error| format!("error: the new process cannot be talked to: {error}");
        self.give(channel).map_err(|error| starter.fate().unwrap_or_else(|| broken(error)))?;
        let until = Instant::now() + PATIENCE;
        let pid = loop {
            match channel.receive(GLANCE) {
                Ok((Message::Ready(pid), _)) => break pid,
                Ok((Message::Failed(why), _)) => return Err(why),
                Ok((other, _)) => return Err(format!("error: the new process says {other:?}")),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(starter.fate().unwrap_or_else(|| broken(error))),
            }
            if Instant::now() > until {
                return Err(format!("error: the new process was not ready within {PATIENCE:?}"));
            }
            self.look_after(starter)?;
        };
        let until = Instant::now() + SETTLING;
        while Instant::now() < until {
            match channel.receive(GLANCE) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(starter.fate().unwrap_or_else(|| broken(error))),
                Ok((other, _)) => return Err(format!("error: the new process says {other:?}")),
            }
            self.look_after(starter)?;
        }
        // From here on the successor asks CAs, and has something to say to systemd.
        self.acme.stop();
        starter.end();
        notify::main_process(pid);
        match channel.send(&Message::Go, &[]) {
            Ok(()) => Ok(pid),
            Err(error) => {
                notify::main_process(std::process::id());
                self.acme.start(&self.runtime, &self.metrics);
                Err(broken(error))
            }
        }
    }

    /// Whether the upgrade can still go on.
    fn look_after(&self, starter: &mut Starter) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("error: the gateway is being stopped".to_owned());
        }
        starter.ended().map_or(Ok(()), Err)
    }

    fn give(&self, channel: &Channel) -> std::io::Result<()> {
        self.server.give(channel)?;
        if let Some(admin) = self.admin.get() {
            admin.give(channel)?;
        }
        if let Some(state_dir) = &self.state_dir {
            channel.send(&Message::StateDirectory, &[state_dir.lock.as_fd()])?;
        }
        channel.send(&Message::Given, &[])
    }
}

/// Waits until the other process is no more, so that it takes no connection after this; gives whether it is.
fn is_closed_soon(channel: &Channel) -> bool {
    let until = Instant::now() + MESSAGE;
    while Instant::now() < until {
        match channel.receive(GLANCE) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return true,
            Ok(_) | Err(_) => {}
        }
    }
    false
}

/// The process that was started for the one that is to take over, or nothing where somebody else started it. That one
/// ends by itself when it is told that it failed.
#[derive(Default)]
struct Starter {
    child: Option<Child>,
    /// Its process group, of which the other is one as well.
    group: Option<Pid>,
}

impl Starter {
    fn of(child: Child) -> Self {
        Self { group: Some(Pid::from_child(&child)), child: Some(child) }
    }

    /// Why the new process is no longer there, if so.
    fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        Some(format!("error: the new process ended ({status}); what it said is in the log"))
    }

    /// The same, of one that has closed its end of the channel and may just be ending.
    fn fate(&mut self) -> Option<String> {
        (0..20).find_map(|_| {
            std::thread::sleep(GLANCE);
            self.ended()
        })
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends both, also if the other does not hear. The number of a group is nobody else's while one of it lives.
    fn end_all(&mut self) {
        self.end();
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Starts the process that is to take over and says with its own end how that one ended. Once this one is ended instead,
/// the other has no parent but the first process of the system: systemd waits only for processes that are its own.
pub(super) fn start_orphan(file: &Path) -> Result<(), String> {
    let started = std::env::current_exe().and_then(|binary| {
        Command::new(binary)
            .args(["run", "--config"])
            .arg(file)
            .env(TAKE_OVER, AS_CHILD)
            .stdin(Stdio::inherit())
            .status()
    });
    match started {
        Ok(status) => std::process::exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))),
        Err(error) => Err(format!("error: cannot start: {error}")),
    }
}

/// Whether this process is to do that.
pub(super) fn is_starter() -> bool {
    std::env::var_os(TAKE_OVER).is_some_and(|value| value == AS_STARTER)
}

/// The process that this one is to replace.
pub(super) struct Predecessor(Channel);

impl Predecessor {
    /// The process that started this one, if it did so to be replaced.
    pub(super) fn parent() -> Option<Self> {
        std::env::var_os(TAKE_OVER).filter(|value| value == AS_CHILD)?;
        let end = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
        // So that nothing keeps the channel open.
        let null = std::fs::File::open("/dev/null").ok()?;
        rustix::stdio::dup2_stdin(null).ok()?;
        Some(Self(Channel::from_end(end)))
    }

    /// Waits for a process that hands over by SIGQUIT.
    ///
    /// # Errors
    /// Nobody did so in time, in words.
    pub(super) fn awaited(state_dir: Option<&Path>) -> Result<Self, String> {
        let Some(state_dir) = state_dir else {
            return Err("error: --upgrade needs [server] state_dir, where the processes meet".to_owned());
        };
        let path = state_dir.join(SOCKET);
        let shown = path.display();
        log::info!("waiting at {shown} for the running gateway to hand over: send it SIGQUIT");
        match Channel::accept(&path, PATIENCE) {
            Ok(channel) => Ok(Self(channel)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(format!("error: nobody handed over at {shown} within {PATIENCE:?}"))
            }
            Err(error) => Err(format!("error: cannot wait at {shown}: {error}")),
        }
    }

    /// What it gives: its sockets, and the lock of its state directory.
    pub(super) fn gives(&self) -> Result<(Inherited, Option<OwnedFd>), String> {
        self.0.take(MESSAGE).map_err(|error| format!("error: nothing can be taken over: {error}"))
    }

    /// Says that this process takes connections.
    pub(super) fn ready(&self) -> Result<(), String> {
        self.0
            .send(&Message::Ready(std::process::id()), &[])
            .map_err(|error| format!("error: the predecessor has gone: {error}"))
    }

    /// Says why this process cannot take over.
    pub(super) fn failed(&self, why: &str) {
        let _ = self.0.send(&Message::Failed(why.to_owned()), &[]);
    }

    /// Waits until this process is the gateway. A predecessor that dies leaves it to this one as well.
    ///
    /// # Errors
    /// The predecessor goes on, for this reason.
    pub(super) fn wait(&self) -> Result<(), String> {
        loop {
            match self.0.receive(PATIENCE) {
                Ok((Message::Failed(why), _)) => return Err(why),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

/// The binary that an upgrade starts: where this one is now, whatever stands there by then.
pub(super) fn binary(configured: Option<PathBuf>) -> PathBuf {
    configured.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| PathBuf::from("portcullis"))
}

/// `portcullis upgrade`: has the running gateway give over to a new process.
pub(super) fn ask(file: &Path) -> Result<(), String> {
    reload::command(file, "/upgrade", "send it SIGUSR2")
}
