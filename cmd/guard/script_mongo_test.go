//go:build linux

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// mongoProgram follows MongoDB's specifications on the wire, as far as a login by
// SCRAM-SHA-256, insert and find go: no server is to be had for tests.
const mongoProgram = `
import base64, bson, hashlib, hmac, os, socketserver, struct, sys
port, log, name, password = int(sys.argv[1]), sys.argv[2], sys.argv[3], os.environ["MONGO_PASSWORD"]
docs = []
def mac(k, m): return hmac.new(k, m, hashlib.sha256).digest()
class H(socketserver.BaseRequestHandler):
    def read(self, n):
        b = b""
        while len(b) < n:
            p = self.request.recv(n - len(b))
            if not p: raise EOFError
            b += p
        return b
    def handle(self):
        try:
            self.serve()
        except EOFError:
            pass
    def serve(self):
        logged, scram = False, None
        while True:
            n, rid, _, op = struct.unpack("<iiii", self.read(16))
            b = self.read(n - 16)
            extra = []
            if op == 2004:
                c = bson.decode(b[b.index(b"\0", 4) + 9:])
            else:
                c, i = None, 4
                while i < len(b):
                    kind, i = b[i], i + 1
                    size = struct.unpack_from("<i", b, i)[0]
                    if kind == 0:
                        c = bson.decode(b[i:i+size])
                    else:
                        extra = bson.decode_all(b[b.index(b"\0", i + 4) + 1:i+size])
                    i += size
            cmd = next(iter(c))
            with open(log, "a") as f:
                f.write(cmd + "\n")
            r = {"ok": 1.0}
            if cmd.lower() == "ismaster" or cmd == "hello":
                r.update(ismaster=True, helloOk=True, maxBsonObjectSize=16 << 20, maxMessageSizeBytes=48000000, maxWriteBatchSize=100000, minWireVersion=0, maxWireVersion=13)
            elif cmd == "saslStart":
                bare = bytes(c["payload"])[3:]
                f = dict(x.split(b"=", 1) for x in bare.split(b","))
                salt = os.urandom(16)
                first = b"r=" + f[b"r"] + base64.b64encode(os.urandom(12)) + b",s=" + base64.b64encode(salt) + b",i=4096"
                scram = (f[b"n"].decode(), bare, first, salt)
                r.update(conversationId=1, done=False, payload=first)
            elif cmd == "saslContinue":
                user, bare, first, salt = scram
                final = bytes(c["payload"])
                rest, proof = final.rsplit(b",p=", 1)
                key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
                client, message = mac(key, b"Client Key"), bare + b"," + first + b"," + rest
                want = bytes(x ^ y for x, y in zip(client, mac(hashlib.sha256(client).digest(), message)))
                if user == name and base64.b64decode(proof) == want:
                    logged = True
                    r.update(conversationId=1, done=True, payload=b"v=" + base64.b64encode(mac(mac(key, b"Server Key"), message)))
                else:
                    r = {"ok": 0.0, "code": 18, "errmsg": "Authentication failed for " + user}
            elif cmd in ("ping", "endSessions"):
                pass
            elif not logged:
                r = {"ok": 0.0, "code": 13, "errmsg": "authentication is needed"}
            elif cmd == "insert":
                docs.extend(extra or c["documents"])
                r["n"] = len(extra or c["documents"])
            elif cmd == "find":
                r["cursor"] = {"firstBatch": docs, "id": bson.int64.Int64(0), "ns": c["$db"] + "." + c[cmd]}
            elif cmd == "dropDatabase":
                r = {"ok": 0.0, "code": 13, "errmsg": "not authorized for user " + name}
            d = bson.encode(r)
            d = struct.pack("<iqii", 0, 0, 0, 1) + d if op == 2004 else struct.pack("<iB", 0, 0) + d
            self.request.sendall(struct.pack("<iiii", 16 + len(d), 1, rid, 1 if op == 2004 else 2013) + d)
class S(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True
with S(("127.0.0.1", port), H) as s:
    print("ready", flush=True)
    s.serve_forever()
`

// mongoserver USER VAR: such a server on 127.0.0.1:$MONGO_PORT, whose password is
// $VAR; $MONGO_GOT is a file with the names of the commands that came.
func cmdMongoServer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "mongoserver USER VAR")
	t := stateOf(ts).t.T
	if exec.Command("/usr/bin/python3", "-c", "import pymongo, bson").Run() != nil {
		if os.Getenv("GUARD_TEST_ALL") != "" {
			ts.Fatalf("pymongo is missing: apt-get install python3-pymongo")
		}
		t.Skip("pymongo is missing: apt-get install python3-pymongo")
	}
	port, got := strconv.Itoa(testutil.FreePort(t)), filepath.Join(t.TempDir(), "got")
	ts.Check(os.WriteFile(got, nil, 0o600))
	cmd := exec.Command("/usr/bin/python3", "-c", mongoProgram, port, got, args[0])
	cmd.Env = append(os.Environ(), "MONGO_PASSWORD="+ts.Getenv(args[1]))
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if l, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(l) != "ready" {
		ts.Fatalf("the server says %q, %v", l, err)
	}
	ts.Setenv("MONGO_PORT", port)
	ts.Setenv("MONGO_GOT", got)
}
