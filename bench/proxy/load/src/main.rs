//! HTTP/1.1 load for the proxy benchmark: what wrk and h2load cannot do.
//!
//! ```text
//! load closed HOST:PORT CONNECTIONS REQUESTS       a fixed number of requests, each as soon as the one before is answered
//! load rate   HOST:PORT CONNECTIONS RATE SECONDS   open loop: latency counts from when a request was due, not sent
//! load idle   HOST:PORT CONNECTIONS                one request on each, then all stay open until standard input ends
//! load sink   HOST:PORT                            an upstream: reads each request's body, then answers 200 with --answer BYTES
//! ```
//!
//! Options: `--host NAME`; `--names N` (`n0` … in turn, instead of one name; `--from N` the first); `--path PATH`;
//! `--post BYTES`. Prints one line of `key=value`. One thread, epoll, keep-alive; a response needs a `Content-Length`.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    num::NonZeroU64,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    thread::set_current_timer_slack,
};

struct Connection {
    stream: TcpStream,
    /// What is still to be written of the request.
    out: Vec<u8>,
    written: usize,
    head: Vec<u8>,
    /// Of the body, once the head is there.
    left: Option<u64>,
    due: Option<Instant>,
    wants_write: bool,
}

struct Load {
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    requests: Requests,
    buffer: Vec<u8>,
    latencies_us: Vec<u64>,
    body_bytes: u64,
    errors: u64,
}

/// The requests to send, one after the other.
struct Requests {
    host: String,
    names: u64,
    next: u64,
    path: String,
    post: usize,
}

impl Requests {
    fn write(&mut self, out: &mut Vec<u8>) {
        out.clear();
        let host = if self.names == 0 { self.host.clone() } else { format!("n{}", self.next % self.names) };
        self.next += 1;
        let method = if self.post > 0 { "POST" } else { "GET" };
        let _ = write!(out, "{method} {} HTTP/1.1\r\nHost: {host}\r\n", self.path);
        if self.post > 0 {
            let _ = write!(out, "Content-Length: {}\r\n", self.post);
        }
        out.extend_from_slice(b"\r\n");
        out.resize(out.len() + self.post, b'x');
    }
}

impl Load {
    fn connect(addr: &str, connections: usize, requests: Requests) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::with_capacity(connections);
        for i in 0..connections {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
            all.push(Connection {
                stream,
                out: Vec::new(),
                written: 0,
                head: Vec::new(),
                left: None,
                due: None,
                wants_write: false,
            });
        }
        Ok(Self {
            epoll,
            connections: all,
            requests,
            buffer: vec![0; 256 * 1024],
            latencies_us: Vec::new(),
            body_bytes: 0,
            errors: 0,
        })
    }

    /// Sends the next request on a connection that is free.
    fn send(&mut self, i: usize, due: Instant) -> io::Result<()> {
        let c = &mut self.connections[i];
        self.requests.write(&mut c.out);
        c.written = 0;
        c.head.clear();
        c.left = None;
        c.due = Some(due);
        self.flush(i)
    }

    fn flush(&mut self, i: usize) -> io::Result<()> {
        let c = &mut self.connections[i];
        while c.written < c.out.len() {
            match (&c.stream).write(&c.out[c.written..]) {
                Ok(n) => c.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let wants_write = c.written < c.out.len();
        if wants_write != c.wants_write {
            c.wants_write = wants_write;
            let flags =
                if wants_write { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(&self.epoll, &c.stream, epoll::EventData::new_u64(i as u64), flags)?;
        }
        Ok(())
    }

    /// Reads what is there; true when the response is complete.
    fn receive(&mut self, i: usize) -> io::Result<bool> {
        let c = &mut self.connections[i];
        loop {
            let n = match (&c.stream).read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            };
            let mut body = n as u64;
            if c.left.is_none() {
                let before = c.head.len();
                c.head.extend_from_slice(&self.buffer[..n]);
                let Some(end) = c.head.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&c.head[..end]).to_ascii_lowercase();
                if !head.starts_with("http/1.1 200") {
                    self.errors += 1;
                }
                let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
                c.left = Some(length.ok_or_else(|| io::Error::other("a response without Content-Length"))?);
                body = (before + n - end - 4) as u64;
            }
            self.body_bytes += body;
            let left = c.left.as_mut().expect("set above");
            *left = left.saturating_sub(body);
            if *left == 0 && c.due.is_some() {
                let due = c.due.take().expect("checked");
                self.latencies_us.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
                return Ok(true);
            }
        }
    }

    /// Handles what is ready, or will be within a time; returns the connections whose response is complete.
    fn turn(
        &mut self,
        events: &mut Vec<epoll::Event>,
        done: &mut Vec<usize>,
        within: Option<Duration>,
    ) -> io::Result<()> {
        done.clear();
        events.clear();
        let within = within.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos().into() });
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), within.as_ref())?;
        for event in events.iter() {
            let (i, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(i)?;
            }
            if self.receive(i)? {
                done.push(i);
            }
        }
        Ok(())
    }

    fn closed(&mut self, total: u64) -> io::Result<f64> {
        let began = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let (mut events, mut done) = (Vec::with_capacity(256), Vec::new());
        for i in 0..self.connections.len().min(total as usize) {
            self.send(i, Instant::now())?;
            sent += 1;
        }
        while answered < total {
            self.turn(&mut events, &mut done, None)?;
            for &i in &done {
                answered += 1;
                if sent < total {
                    self.send(i, Instant::now())?;
                    sent += 1;
                }
            }
        }
        Ok(began.elapsed().as_secs_f64())
    }

    fn rate(&mut self, rate: f64, seconds: f64) -> io::Result<f64> {
        // To the nanosecond: usually a wait may end fifty microseconds late.
        set_current_timer_slack(NonZeroU64::new(1))?;
        let (gap, total) = (Duration::from_secs_f64(1.0 / rate), (rate * seconds) as u64);
        let (mut events, mut done) = (Vec::with_capacity(256), Vec::new());
        let mut free: VecDeque<usize> = (0..self.connections.len()).collect();
        let began = Instant::now();
        let (mut sent, mut answered) = (0_u32, 0);
        while answered < total {
            let now = Instant::now();
            while u64::from(sent) < total && began + gap * sent <= now {
                let Some(i) = free.pop_front() else { break };
                self.send(i, began + gap * sent)?;
                sent += 1;
            }
            let due = u64::from(sent) < total && !free.is_empty();
            let within = due.then(|| (began + gap * sent).saturating_duration_since(Instant::now()));
            self.turn(&mut events, &mut done, within)?;
            for &i in &done {
                answered += 1;
                free.push_back(i);
            }
        }
        Ok(began.elapsed().as_secs_f64())
    }

    fn report(&mut self, seconds: f64) {
        let l = &mut self.latencies_us;
        l.sort_unstable();
        let at = |q: f64| l.get(((l.len() as f64 * q) as usize).min(l.len().saturating_sub(1))).copied().unwrap_or(0);
        println!(
            "requests={} seconds={seconds:.3} errors={} bytes={} p50={} p90={} p99={} p999={}",
            l.len(),
            self.errors,
            self.body_bytes,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999)
        );
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let mut requests = Requests { host: "web".into(), names: 0, next: 0, path: "/".into(), post: 0 };
    let mut plain = Vec::new();
    let mut answer = 0;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--host" => requests.host.clone_from(value()?),
            "--path" => requests.path.clone_from(value()?),
            "--names" => requests.names = number(value()?)?,
            "--from" => requests.next = number(value()?)?,
            "--post" => requests.post = number(value()?)? as usize,
            "--answer" => answer = number(value()?)? as usize,
            _ => plain.push(arg.as_str()),
        }
    }
    let io = |e: io::Error| e.to_string();
    match plain[..] {
        ["closed", addr, connections, total] => {
            let mut load = Load::connect(addr, number(connections)? as usize, requests).map_err(io)?;
            let seconds = load.closed(number(total)?).map_err(io)?;
            load.report(seconds);
        }
        ["rate", addr, connections, rate, seconds] => {
            let mut load = Load::connect(addr, number(connections)? as usize, requests).map_err(io)?;
            let seconds = load.rate(number(rate)? as f64, number(seconds)? as f64).map_err(io)?;
            load.report(seconds);
        }
        ["idle", addr, connections] => {
            let connections = number(connections)?;
            let mut load = Load::connect(addr, connections as usize, requests).map_err(io)?;
            // One at a time on each in turn, so that the upstream side needs few connections.
            let (mut events, mut done) = (Vec::with_capacity(256), Vec::new());
            for i in 0..connections as usize {
                load.send(i, Instant::now()).map_err(io)?;
                while done.is_empty() {
                    load.turn(&mut events, &mut done, None).map_err(io)?;
                }
                done.clear();
            }
            load.report(0.0);
            let _ = io::stdin().read(&mut [0]);
        }
        ["sink", addr] => {
            let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {answer}\r\n\r\n").into_bytes();
            response.resize(response.len() + answer, b'x');
            let response: Arc<[u8]> = response.into();
            for stream in TcpListener::bind(addr).map_err(io)?.incoming() {
                let (stream, response) = (stream.map_err(io)?, response.clone());
                std::thread::spawn(move || drop(sink(stream, &response))); // a proxy that closes ends its thread
            }
        }
        _ => return Err("see the head of src/main.rs for how to call this".into()),
    }
    Ok(())
}

/// Serves one connection, with the same response each time.
fn sink(mut stream: TcpStream, response: &[u8]) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().to_ascii_lowercase().strip_prefix("content-length:") {
                Some(value) => length = value.trim().parse().map_err(io::Error::other)?,
                None if line == "\r\n" => break,
                None => {}
            }
        }
        io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
        stream.write_all(response)?;
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("load: {e}");
            ExitCode::FAILURE
        }
    }
}
