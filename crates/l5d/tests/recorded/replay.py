#!/usr/bin/env python3
"""Replays recorded scenarios of the real Linkerd 1.7.5 against l5d and prints where the two differ.

    replay.py --bin target/debug/l5d                     all scenarios
    replay.py --bin target/debug/l5d refused 'tls-*'     only these
    replay.py -v --bin target/debug/l5d plain            every differing point, not the first few, and what is extra

A scenario (scenarios/*.py) is a configuration, upstreams with scripted behaviour, and traffic. Its recording
(expected/NAME.json) holds what Linkerd 1.7.5 did: each response, what each upstream was sent, every metric under rt/ and namer/
in four faces, and admin pages. Ports are replaced by names such as <up1>; what differed between recording runs is "*".
Each recorded fact is one point. accepted.txt lists differences that were decided on, with the reason.

Python 3.9 or later, standard library only; the scenarios with TLS call openssl. Everything is on loopback, on free ports; each
process started here is stopped by its id.
"""
import argparse, fnmatch, importlib.util, json, os, re, shutil, socket, ssl, subprocess, sys, tempfile, threading, time, zlib

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
SCENARIOS = {}


class Scenario:
    def __init__(self, name, config, run, ups, flags, faces, doc, statsd):
        self.name, self.config, self.run, self.ups, self.flags = name, config, run, ups, flags
        self.faces, self.doc, self.statsd = faces, doc, statsd


def scenario(config, ups=1, flags=(), faces=False, statsd=False):
    """Registers a scenario. `config` is YAML with {names} for ports; the function gets a Context and makes the traffic.
    `faces`: the Prometheus and InfluxDB texts are recorded too."""
    def add(fn):
        name = fn.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, config, fn, ups, list(flags), faces, (fn.__doc__ or "").strip(), statsd)
        return fn
    return add


# --- sockets -----------------------------------------------------------------------------------------------------------------

PORTS = {"lowest": 13000, "count": 6000, "next": os.getpid() * 7919}


def free_port():
    """Below the ports that outgoing connections and upstreams get, and another one each time: runs side by side do not meet."""
    while True:
        PORTS["next"] += 1
        p = PORTS["lowest"] + PORTS["next"] % PORTS["count"]
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", p))
                return p
            except OSError:
                pass


def listening(port):
    """Asked of the kernel, so that no connection is counted."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if any(re.match(rf"\s*\d+: [0-9A-F]+:{port:04X} \S+ 0A", l) for l in open(table)):
            return True
    return False


def read_head(f):
    lines = []
    while True:
        line = f.readline(1 << 20)
        if not line:
            return None if not lines else lines
        line = line.rstrip(b"\r\n")
        if not line:
            if lines:
                return lines
            continue
        lines.append(line)


def header_list(lines):
    out = []
    for l in lines:
        k, _, v = l.partition(b":")
        out.append([k.decode("latin1"), v.strip().decode("latin1")])
    return out


def find(headers, name):
    for k, v in headers:
        if k.lower() == name:
            return v
    return None


def read_body(f, headers, no_body=False, until_close=False):
    if no_body:
        return b""
    te = (find(headers, "transfer-encoding") or "").lower()
    if "chunked" in te:
        out = b""
        while True:
            size = f.readline()
            if not size:
                return out + b"<cut>"
            n = int(size.split(b";")[0].strip() or b"0", 16)
            if n == 0:
                while f.readline().strip():
                    pass
                return out
            out += f.read(n)
            f.readline()
    n = find(headers, "content-length")
    if n is not None:
        b = f.read(int(n))
        return b if len(b) == int(n) else b + b"<cut>"
    return f.read() if until_close else b""


class Upstream:
    """A server that does what the path says, the last matching element first:
    /status/503  /slow/250 (ms)  /bytes/9000  /chunked/3  /once/500/KEY (first time only)  /times/2/503/KEY  /close  /half
    /garbage  /hdr/NAME/VALUE (+ is a blank, ~ a slash)  /old (HTTP/1.0, ends by closing)  /nolength; otherwise 200 and the body `ok`."""

    def __init__(self, name):
        self.name, self.seen, self.counts, self.lock = name, [], {}, threading.Lock()
        self.connections, self.tls = 0, None
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(256)
        self.port = self.sock.getsockname()[1]
        self.mode = None
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        try:
            if self.tls:
                c = self.tls.wrap_socket(c, server_side=True)
        except OSError:
            return c.close()
        f = c.makefile("rb")
        try:
            while True:
                head = read_head(f)
                if not head:
                    return
                line, headers = head[0].decode("latin1"), header_list(head[1:])
                if (find(headers, "expect") or "").lower() == "100-continue":
                    c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = read_body(f, headers)
                with self.lock:
                    self.seen.append({"line": line, "headers": headers, "body": show(body)})
                if not self.answer(c, line):
                    return
        except (OSError, ValueError):
            pass
        finally:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            f.close()
            c.close()

    def answer(self, c, line):
        method, target = line.split(" ")[:2]
        parts = (self.mode or target).split("?")[0].strip("/").split("/")
        status, body, extra, i, length = 200, b"ok", [], 0, True
        while i < len(parts):
            p, arg = parts[i], (parts[i + 1] if i + 1 < len(parts) else "")
            if p == "status":
                status = int(arg)
            elif p == "slow":
                time.sleep(int(arg) / 1000)
            elif p == "bytes":
                body = b"x" * int(arg)
            elif p in ("once", "times"):
                limit, code, key = (1, arg, parts[i + 2]) if p == "once" else (int(arg), parts[i + 2], parts[i + 3])
                with self.lock:
                    self.counts[key] = self.counts.get(key, 0) + 1
                    if self.counts[key] <= limit:
                        status = int(code)
            elif p == "hdr":
                extra.append((arg, parts[i + 2].replace("+", " ").replace("~", "/")))
            elif p == "close":
                return False
            elif p == "half":
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"y" * 10000)
                return False
            elif p == "garbage":
                c.sendall(b"EHLO nonsense\r\n\r\n")
                return False
            elif p == "old":
                c.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhi")
                return False
            elif p == "chunked":
                c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4\r\nabcd\r\n" * int(arg) + b"0\r\n\r\n")
                return True
            elif p == "nolength":
                length = False
            i += 1
        no_body = method == "HEAD" or status in (204, 304) or status < 200
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n"
        for k, v in extra:
            head += f"{k}: {v}\r\n"
        if length and status not in (204, 304):
            head += f"Content-Length: {len(body)}\r\n"
        c.sendall(head.encode("latin1") + b"\r\n" + (b"" if no_body else body))
        return True


REASONS = {200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 304: "Not Modified", 400: "Bad Request",
           404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}


def show(b):
    if len(b) > 400:
        return f"<{len(b)} bytes crc {zlib.crc32(b):08x}>"
    return b.decode("latin1")


class Connection:
    """One client connection to a server of the proxy; requests on it are kept in order."""

    def __init__(self, port, timeout=15, tls=None, name=None):
        self.s = socket.create_connection(("127.0.0.1", port), timeout)
        if tls:
            self.s = tls.wrap_socket(self.s, server_hostname=name)
        self.f = self.s.makefile("rb")

    def send(self, data):
        self.s.sendall(data)

    def request(self, path="/", host="web", method="GET", headers=(), body=None, chunks=None, version="HTTP/1.1"):
        h = f"{method} {path} {version}\r\n"
        if host is not None:
            h += f"Host: {host}\r\n"
        for k, v in headers:
            h += f"{k}: {v}\r\n"
        if chunks is not None:
            h += "Transfer-Encoding: chunked\r\n"
        elif body is not None:
            h += f"Content-Length: {len(body)}\r\n"
        self.send(h.encode("latin1") + b"\r\n" + (body or b""))
        for ch in chunks or []:
            self.send(b"%x\r\n%s\r\n" % (len(ch), ch))
        if chunks is not None:
            self.send(b"0\r\n\r\n")
        return self.response(method)

    def response(self, method="GET"):
        try:
            while True:
                head = read_head(self.f)
                if not head:
                    return {"status": "closed"}
                status = int(head[0].split(b" ")[1])
                headers = header_list(head[1:])
                if status >= 200 or status == 101:
                    break
            body = read_body(self.f, headers, method == "HEAD" or status in (204, 304), until_close=True)
            if (find(headers, "content-encoding") or "") == "gzip" and body:
                body = b"gzip of " + zlib.decompress(body, 31)
                headers = [[k, "some" if k.lower() == "content-length" else v] for k, v in headers]
            return {"status": status, "line": head[0].decode("latin1"), "headers": headers, "body": show(body)}
        except socket.timeout:
            return {"status": "timeout"}
        except OSError as e:
            return {"status": "reset"}

    def close(self):
        try:
            self.s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.f.close()
        self.s.close()


# --- one run -------------------------------------------------------------------------------------------------------------------

class Context:
    """What a scenario's function works with."""

    def __init__(self, sc, binary):
        self.sc, self.dir, self.facts, self.n = sc, tempfile.mkdtemp(prefix="replay-"), {}, 0
        self.ups = [Upstream(f"up{i+1}") for i in range(sc.ups)]
        self.ports = {u.name: u.port for u in self.ups}
        for n in sorted(set(re.findall(r"\{((?:admin|server|dead|ident)[0-9]*)\}", sc.config))):
            self.ports[n] = free_port()
        self.ports.setdefault("admin", free_port())
        self.udp = None
        if sc.statsd:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self.udp.bind(("127.0.0.1", 0))
            self.udp.settimeout(0.05)
            self.ports["statsd"] = self.udp.getsockname()[1]
        os.makedirs(self.dir + "/disco")
        self.binary, self.p, self.log = binary, None, self.dir + "/log"
        self.conns = {}

    def fill(self, text):
        for k, v in self.ports.items():
            text = text.replace("{" + k + "}", str(v))
        return text.replace("{dir}", self.dir)

    def disco(self, name, *ups):
        """Writes a name file of the fs namer, in place."""
        open(f"{self.dir}/disco/{name}", "w").write("".join(f"127.0.0.1 {u if isinstance(u, int) else self.ports[u]}\n" for u in ups))

    def start(self, wait=True):
        config = self.sc.config if "\nadmin:" in "\n" + self.sc.config else "admin:\n  port: {admin}\n" + self.sc.config
        path = self.dir + "/linkerd.yaml"
        open(path, "w").write(self.fill(config))
        args = [self.binary, "-io.buoyant.telemetry.admin.histogramSnapshotInterval=1.seconds"] + [self.fill(f) for f in self.sc.flags] + [path]
        self.p = subprocess.Popen(args, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=open(self.log, "wb"), stderr=subprocess.STDOUT)
        if not wait:
            return
        end = time.time() + 60
        while time.time() < end:
            if self.p.poll() is not None:
                raise RuntimeError(f"exited with {self.p.returncode}: " + open(self.log, errors="replace").read()[-600:])
            try:
                if self.admin("/admin/ping")["status"] == 200 and all(listening(p) for n, p in self.ports.items() if n.startswith("server")):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError("not ready within 60 s: " + open(self.log, errors="replace").read()[-600:])

    def stop(self):
        if self.p and self.p.poll() is None:
            self.p.terminate()
            try:
                self.p.wait(15)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        for u in self.ups:
            u.close()
        shutil.rmtree(self.dir, True)

    def certificates(self, *names):
        """ca.pem, and NAME.pem with NAME.key (PKCS#8) for each name, in the scenario's folder; needs openssl."""
        def ssl_(*a):
            subprocess.run(["openssl", *a], cwd=self.dir, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ssl_("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=replay ca")
        for n in names:
            ssl_("req", "-newkey", "rsa:2048", "-nodes", "-keyout", n + ".key", "-out", n + ".csr", "-subj", "/CN=" + n)
            open(f"{self.dir}/{n}.ext", "w").write(f"subjectAltName=DNS:{n}\n")
            ssl_("x509", "-req", "-in", n + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", n + ".pem", "-days", "30", "-extfile", n + ".ext")

    def server_tls(self, name, client_ca=False):
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        c.load_cert_chain(f"{self.dir}/{name}.pem", f"{self.dir}/{name}.key")
        if client_ca:
            c.verify_mode = ssl.CERT_REQUIRED
            c.load_verify_locations(self.dir + "/ca.pem")
        return c

    def client_tls(self, cert=None):
        c = ssl.create_default_context(cafile=self.dir + "/ca.pem")
        if cert:
            c.load_cert_chain(f"{self.dir}/{cert}.pem", f"{self.dir}/{cert}.key")
        return c

    # traffic
    def connect(self, server="server", timeout=15, tls=None, name=None):
        return Connection(self.ports[server], timeout, tls, name)

    def get(self, path="/", host="web", server="server", keep="main", note=True, **kw):
        """One request on the connection named `keep` (None: a new one, closed afterwards). Its response is recorded."""
        c = self.conns.get((server, keep)) if keep else None
        if c is None:
            c = self.connect(server)
            if keep:
                self.conns[(server, keep)] = c
        r = c.request(path, host, **kw)
        if not keep:
            c.close()
        elif r["status"] in ("closed", "reset", "timeout") or (find(r["headers"], "connection") or "").lower() == "close" or r["line"].startswith("HTTP/1.0"):
            c.close()
            self.conns.pop((server, keep), None)
        if note:
            self.note(f"{kw.get('method', 'GET')} {path} {'' if host is None else host}", r)
        return r

    def many(self, n, path="/", **kw):
        """n requests of which only the statuses are recorded."""
        st = {}
        for _ in range(n):
            s = str(self.get(path, note=False, **kw)["status"])
            st[s] = st.get(s, 0) + 1
        self.note(f"{n} x {path} {kw.get('host', 'web')}", {"statuses": st})

    def raw(self, data, server="server", timeout=3):
        """Bytes as they are on a connection of their own; records the first response."""
        c = self.connect(server, timeout)
        c.send(data if isinstance(data, bytes) else data.encode("latin1"))
        r = c.response()
        c.close()
        self.note("raw " + show(data[:60] if isinstance(data, bytes) else data[:60].encode("latin1")), r)
        return r

    def note(self, what, r):
        self.n += 1
        self.facts[f"{self.n:02d} {what.strip()}"] = r

    def admin(self, path, method="GET", headers=(), note=False, body=None):
        c = Connection(self.ports["admin"], 15)
        r = c.request(path, host="localhost", method=method, headers=list(headers) + [("Connection", "close")], body=body)
        c.close()
        if note:
            self.note(f"admin {method} {path}", r)
        return r

    def admin_json(self, path):
        """Records an admin page's JSON, parsed."""
        r = self.admin(path)
        try:
            v = json.loads(self.big(path))
        except ValueError:
            v = r.get("body")
        self.note(f"admin {path}", {"status": r["status"], "json": v})

    def flat(self):
        """metrics.json with every number as text: i7, f1.0."""
        return json.loads(self.big("/admin/metrics.json"), parse_float=lambda t: "f" + t, parse_int=lambda t: "i" + t)

    def big(self, path):
        import urllib.request, urllib.error
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.ports['admin']}{path}", timeout=15).read().decode()
        except urllib.error.HTTPError as e:
            return e.read().decode()

    def wait(self, secs):
        time.sleep(secs)


KEEP = re.compile(r"^(rt|namer)/")
STAT = re.compile(r"(.*)\.(count|max|min|p50|p90|p95|p99|p9990|p9999|sum|avg|stddev)$")
SUMMARY = "avg count max min p50 p90 p95 p99 p999 p9999 sum".split()


class Watch(threading.Thread):
    """Polls the metrics while the scenario runs: a stat shows only what its last window got, so one look would miss it."""

    def __init__(self, cx):
        super().__init__(daemon=True)
        self.cx, self.going, self.stats, self.lines = cx, True, {}, set()
        self.start()

    def run(self):
        while self.going:
            try:
                self.look()
            except (OSError, ValueError):
                pass
            time.sleep(0.2)

    def look(self):
        flat = self.cx.flat()
        for k, v in flat.items():
            m = STAT.match(k)
            if m and m.group(2) == "count" and KEEP.match(k):
                self.stats[m.group(1)] = self.stats.get(m.group(1), False) or v != "i0"
        if self.cx.sc.faces:
            self.lines.update(l.rsplit(" ", 1)[0] for l in self.cx.big("/admin/metrics/prometheus").split("\n") if re.match(r"(rt|namer):", l))
        return flat

    def end(self):
        time.sleep(1.7)
        self.going = False
        self.join(5)
        return self.look()


def metrics(cx, watch):
    """The faces, each as a flat map: fact -> value."""
    out, flat = {}, watch.end()
    for k, v in flat.items():
        m = STAT.match(k)
        if KEEP.match(k) and not (m and m.group(1) + ".count" in flat):
            out[("gauge " if v[0] == "f" else "counter ") + k] = v[1:]
    out.update({"stat " + k: "moved" if v else "still" for k, v in watch.stats.items()})
    if cx.sc.faces:
        out.update({"prometheus " + l: "" for l in watch.lines})
        for l in cx.big("/admin/metrics/influxdb").split("\n"):
            if re.match(r"(rt|namer)[:,]", l):
                key, _, fields = l.rpartition(" ")
                names = {f.split("=")[0] for f in fields.split(",")}
                for stat in {n[:-6] for n in names if n.endswith("_count")}:
                    if names >= {f"{stat}_{x}" for x in SUMMARY}:
                        names = names - {f"{stat}_{x}" for x in SUMMARY} | {f"{stat}_*"}
                out.update({f"influxdb {key} {n}": "" for n in names})
    if cx.udp:
        end = time.time() + 2.5
        while time.time() < end:
            try:
                for l in cx.udp.recv(65536).decode().split("\n"):
                    m = re.match(r"(.*?):(.*)\|(\w+)", l)
                    if m and re.search(r"\brt\b", m.group(1)):
                        out[f"statsd {m.group(1)}|{m.group(3)}"] = ""
            except socket.timeout:
                pass
    return {re.sub(r"(per_thread[/:.,]).*?(?=[{|]|$)", r"\1<thread>", k): v for k, v in out.items()}


def normal(cx, text):
    for k, v in sorted(cx.ports.items(), key=lambda kv: -len(str(kv[1]))):
        text = re.sub(rf"(?<!\d){v}(?!\d)", f"<{k}>", text)
    text = text.replace(cx.dir, "<dir>")
    text = re.sub(r"(127\.0\.0\.1(?::|%3A|/))(\d{4,5})(?!\d)", r"\1<port>", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "<trace>", text)
    return re.sub(r"(@|%40)[0-9a-f]{6,8}\b", r"\1<id>", text)


DROP = {"date"}


def joined(headers):
    out = {}
    for k, v in headers:
        k = k.lower()
        out[k] = out[k] + " & " + v if k in out else v
    return out


def facts_of(cx, watch):
    """Everything a run showed, as a flat map of fact -> value, ports replaced by their names."""
    out = {}
    for what, r in cx.facts.items():
        if "json" in r or "statuses" in r:
            for k, v in r.items():
                out[f"{what} | {k}"] = json.dumps(v, sort_keys=True)
            continue
        out[f"{what} | status"] = str(r["status"])
        for k, v in joined(r.get("headers", [])).items():
            if k not in DROP:
                out[f"{what} | header {k}"] = v
        if "body" in r:
            out[f"{what} | body"] = r["body"]
    for u in cx.ups:
        out[f"{u.name} requests"] = str(len(u.seen))
        lines = [s["line"] for s in u.seen[:16]]
        for i, s in enumerate(u.seen[:16]):
            out[f"{u.name} #{i+1} line"] = s["line"]
            if lines.index(s["line"]) < i - 1:
                continue
            for k, v in joined(s["headers"]).items():
                out[f"{u.name} #{i+1} header {k}"] = f"{len(v)} characters" if k == "l5d-ctx-trace" else v
            out[f"{u.name} #{i+1} body"] = s["body"]
    out.update(metrics(cx, watch))
    return {normal(cx, k): normal(cx, v) for k, v in out.items()}


def run(sc, binary):
    cx = Context(sc, binary)
    try:
        prepare = getattr(sc.run, "prepare", None)
        if prepare:
            prepare(cx)
        cx.start()
        watch = Watch(cx)
        sc.run(cx)
        for c in cx.conns.values():
            c.close()
        return facts_of(cx, watch)
    finally:
        cx.stop()


# --- compare ------------------------------------------------------------------------------------------------------------------------

def accepted():
    rules = []
    for l in open(HERE + "/accepted.txt"):
        l = l.split("  # ")[0].strip()
        if l and not l.startswith("# "):
            sc, _, pat = l.partition(" ")
            rules.append((sc, pat.strip()))
    return rules


SECTIONS = ("wire", "metrics", "faces")


def section(fact):
    word = fact.split(" ")[0]
    return "metrics" if word in ("counter", "gauge", "stat") else "faces" if word in ("prometheus", "influxdb", "statsd") else "wire"


def compare(name, want, got, rules):
    """(points by section, reached by section, excused, differences)"""
    points, reached, excused, diffs = dict.fromkeys(SECTIONS, 0), dict.fromkeys(SECTIONS, 0), 0, []
    for k, v in want.items():
        g, part = got.get(k), section(k)
        if g is not None and (v == "*" or g == v):
            reached[part] += 1
        elif any(fnmatch.fnmatchcase(name, s) and fnmatch.fnmatchcase(k, p) for s, p in rules):
            excused += 1
            continue
        else:
            diffs.append(f"{k}: {'absent' if g is None else repr(g)}, recorded {v!r}")
        points[part] += 1
    diffs.sort(key=lambda d: SECTIONS.index(section(d)))
    return points, reached, excused, diffs


def line(points, reached):
    return "  ".join(f"{s} {reached[s]}/{points[s]}" for s in SECTIONS if points[s])


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("names", nargs="*")
    a.add_argument("--bin", required=True, help="the program to run")
    a.add_argument("-v", action="store_true", help="every difference, and what is extra")
    a.add_argument("--list", action="store_true")
    o = a.parse_args()
    sys.modules["replay"] = sys.modules["__main__"]
    for f in sorted(os.listdir(HERE + "/scenarios")):
        if f.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f[:-3], f"{HERE}/scenarios/{f}")
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    names = [n for n in SCENARIOS if not o.names or any(fnmatch.fnmatch(n, p) for p in o.names)]
    if not names:
        print("no scenario of that name; --list shows them")
        return 2
    if o.list:
        for n in names:
            print(f"{n:24} {SCENARIOS[n].doc}")
        return 0
    binary = os.path.abspath(o.bin) if os.path.exists(o.bin) else o.bin
    rules, total, got_all, bad = accepted(), dict.fromkeys(SECTIONS, 0), dict.fromkeys(SECTIONS, 0), 0
    for n in names:
        want = json.load(open(f"{HERE}/expected/{n}.json"))
        try:
            got = run(SCENARIOS[n], binary)
        except Exception as e:
            print(f"{n}: {type(e).__name__}: {e}", flush=True)
            bad += 1
            for k in want:
                total[section(k)] += 1
            continue
        points, reached, excused, diffs = compare(n, want, got, rules)
        for s in SECTIONS:
            total[s] += points[s]
            got_all[s] += reached[s]
        bad += bool(diffs)
        print(f"{n}: {line(points, reached)}" + (f", {excused} decided differences" if excused else ""), flush=True)
        for d in diffs if o.v else diffs[:6]:
            print("    " + d[:300])
        if not o.v and len(diffs) > 6:
            print(f"    and {len(diffs) - 6} more (-v)")
        if o.v:
            for k in sorted(set(got) - set(want)):
                if k.split(" ")[0] in ("counter", "gauge", "stat"):
                    print("    extra " + k)
    print(f"recorded facts that hold: {line(total, got_all)}")
    print(f"{len(names) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
