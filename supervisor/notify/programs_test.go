//go:build linux && (amd64 || arm64)

package notify

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"guard/internal/testutil"
)

// goCopyJob is io.Copy between files, which takes copy_file_range where it can.
func goCopyJob(from, to string) int {
	in, err := os.Open(from)
	check("open", err)
	out, err := os.Create(to)
	check("create", err)
	_, err = io.Copy(out, in)
	check("copy", err)
	check("close", out.Close())
	return 0
}

// TestPrograms has programs do their work with every write done by somebody
// else, and the calls taken away that would go around that.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 5<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, data, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		needs  string
		script string // leaves what big holds in $OUT
	}{
		{"cp", "cp", `cp "$BIG" "$OUT"`},
		{"cp --reflink", "cp", `cp --reflink=auto "$BIG" "$OUT"`},
		{"cat", "cat", `cat "$BIG" | cat >"$OUT"`},
		{"tee", "tee", `tee "$OUT" <"$BIG" >/dev/null`},
		{"dd", "dd", `dd if="$BIG" of="$OUT" bs=3001 conv=notrunc status=none`},
		{"dd, direct", "dd", `dd if="$BIG" of="$OUT" bs=64k oflag=direct status=none 2>/dev/null || cp "$BIG" "$OUT"`},
		{"tar", "tar", `tar -C "$DIR" -czf x.tgz big && mkdir x && tar -C x -xzf x.tgz && mv x/big "$OUT"`},
		{"git", "git", `git init -q r && cp "$BIG" r/big && cd r && git -c user.name=x -c user.email=x@y add big && git -c user.name=x -c user.email=x@y commit -qm m && git gc -q && git clone -q . ../c && cp ../c/big "$OUT"`},
		{"rsync", "rsync", `rsync "$BIG" "$OUT"`},
		{"python", "python3", `python3 -c 'import shutil,os; shutil.copyfile(os.environ["BIG"], os.environ["OUT"])'`},
		{"python, many threads", "python3", `python3 -c '
import os, threading
b, out = open(os.environ["BIG"], "rb").read(), os.open(os.environ["OUT"], os.O_CREAT | os.O_WRONLY)
def part(i):
    for at in range(i * 4096, len(b), 16 * 4096):
        os.pwrite(out, b[at:at + 4096], at)
ts = [threading.Thread(target=part, args=(i,)) for i in range(16)]
[t.start() for t in ts]; [t.join() for t in ts]'`},
		{"node", "node", `node -e 'require("fs").copyFileSync(process.env.BIG, process.env.OUT)'`},
		{"node, streams", "node", `node -e 'const fs=require("fs"); fs.createReadStream(process.env.BIG).pipe(fs.createWriteStream(process.env.OUT))'`},
		{"go", "sh", jobEnv + `=copy "$SELF" "$BIG" "$OUT"`},
		{"sed in place", "sed", `cp "$BIG" "$OUT" && sed -i '' "$OUT"`},
		{"sqlite through python", "python3", `python3 -c '
import os, sqlite3
b = open(os.environ["BIG"], "rb").read()
for mode in "delete", "wal":
    db = sqlite3.connect("db-" + mode)
    db.execute("pragma journal_mode=" + mode)
    db.execute("create table t(i integer primary key, b blob)")
    with db:
        for i in range(0, len(b), 100000): db.execute("insert into t values(?, ?)", (i, b[i:i+100000]))
    db.close()
open(os.environ["OUT"], "wb").write(b"".join(r[0] for r in sqlite3.connect("db-wal").execute("select b from t order by i")))'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.needs); err != nil {
				t.Skipf("%s is not installed", c.needs)
			}
			work := t.TempDir()
			to := filepath.Join(work, "out")
			out, err, stats := run(t, forbid(), func(cmd *exec.Cmd) {
				cmd.Dir = work
				cmd.Env = append(append(cmd.Env, testutil.GitEnv(work)...), "BIG="+big, "DIR="+dir, "OUT="+to, "SELF="+self, "PATH="+os.Getenv("PATH"))
			}, "sh", "-c", c.script)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %d arrived, or others: %v", len(got), len(data), err)
			}
			for ch, s := range stats {
				if s.NoAccess+s.Unreadable+s.Blind > 0 {
					t.Errorf("%s: %+v", ch, s)
				}
			}
		})
	}
}
