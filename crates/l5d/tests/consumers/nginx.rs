//! nginx as an upstream: a folder of files, and a log of what it was asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use l5d_testkit::{Process, free_port, get};

use crate::programs::installed;

pub(crate) struct Nginx {
    pub(crate) port: u16,
    /// A file of a megabyte that is served as `/large.bin`.
    pub(crate) large: Vec<u8>,
    log: PathBuf,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Nginx {
    pub(crate) fn start() -> Self {
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let root = folder.path().join("root");
        std::fs::create_dir_all(&root).expect("a folder can be made");
        // Bytes without a pattern that a wrong copy could hide in.
        let large: Vec<u8> = (0_u32..1_048_576).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(root.join("large.bin"), &large).expect("a file can be written");
        std::fs::write(root.join("page.txt"), "served by nginx\n".repeat(200)).expect("a file can be written");
        make_readable(folder.path());
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "daemon off; master_process off; pid {pid}; error_log {errors};\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  log_format asked '$request_method $uri|$http_via|$http_l5d_dst_service|$http_l5d_dst_client|$status|$connection_requests';\n  \
             access_log {log} asked;\n  client_body_temp_path {b}; proxy_temp_path {p}; fastcgi_temp_path {f}; uwsgi_temp_path {u}; scgi_temp_path {s};\n  \
             gzip on; gzip_types text/plain; gzip_proxied any; gzip_min_length 100;\n  \
             types {{ text/plain txt; }}\n  default_type application/octet-stream;\n  \
             server {{ listen {addr}; root {root}; }}\n}}\n",
            pid = at("pid"),
            errors = at("errors"),
            log = at("log"),
            b = at("b"),
            p = at("p"),
            f = at("f"),
            u = at("u"),
            s = at("s"),
            root = root.display()
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("a file can be written");
        let mut command = installed("nginx", "nginx");
        command.arg("-c").arg(&file).arg("-p").arg(folder.path()).arg("-e").arg(at("errors"));
        let mut process = Process::start("nginx", &mut command).expect("nginx starts");
        process.wait_ready(Duration::from_secs(30), || {
            get(addr, "localhost", "/page.txt").is_ok_and(|reply| reply.status == 200)
        });
        Self { port: addr.port(), large, log: folder.path().join("log"), _process: process, _folder: folder }
    }

    /// What it was asked so far, one line a request: `GET /page.txt|via|service|client|status|nth on its connection`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// nginx may serve as another user than the one that wrote the files.
fn make_readable(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("our own folder");
}
