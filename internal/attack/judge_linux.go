package attack

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// attackerGot says whether the adversary's server got anything by a case.
func (w *world) attackerGot(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.attacker[name]) > 0
}

// attackerHas says whether the adversary's server got value by a case.
func (w *world) attackerHas(name, value string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.attacker[name], []byte(value))
}

func (w *world) apiHas(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.api[name]) > 0
}

func (w *world) apiSaw(name, value string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.api[name], []byte(value))
}

// apiLeaked says whether the credential's server got the value elsewhere than in
// the header that is for it.
func (w *world) apiLeaked(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range bytes.Lines(w.api[name]) {
		if !bytes.HasPrefix(line, []byte("Authorization:")) && bytes.Contains(line, []byte(w.values["allowed"])) {
			return true
		}
	}
	return false
}

// printed judges what the session's output holds.
func (w *world) printed(what []byte) got {
	if !bytes.Contains(w.output, []byte("[print-raw]")) && w.only == "" {
		return skip("the session's output did not come")
	}
	if bytes.Contains(w.output, what) {
		return broke("it is in the session's output")
	}
	return held("the output has a mask in its place")
}

// screen is what the terminal got.
func (w *world) screen() string { return string(w.terminal) }

// shown judges the terminal's bytes, without those that show nothing.
func (w *world) shown() got {
	if strings.Contains(plainText(w.terminal), w.values["stored"]) {
		return broke("the terminal shows it")
	}
	return held("the terminal shows a mask in its place")
}

// plainText is a terminal's output without sequences and controls.
func plainText(b []byte) string {
	var s strings.Builder
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == 0x1b && i+1 < len(b) && b[i+1] == '[':
			for i += 2; i < len(b) && (b[i] < 0x40 || b[i] > 0x7e); i++ {
			}
		case c == 0x1b && i+1 < len(b) && b[i+1] == ']':
			for i += 2; i < len(b) && b[i] != 7 && b[i] != 0x1b; i++ {
			}
		case c >= 0x20 && c != 0x7f || c == '\n':
			s.WriteByte(c)
		}
	}
	return s.String()
}

// drawn judges what stands on the screen after the moves: a terminal that knows
// where the cursor goes, and nothing more.
func (w *world) drawn() got {
	grid := make([][]byte, 30)
	for i := range grid {
		grid[i] = bytes.Repeat([]byte(" "), 200)
	}
	row, col := 0, 0
	check := func() bool {
		for _, line := range grid {
			if bytes.Contains(line, []byte(w.values["stored"])) {
				return true
			}
		}
		return false
	}
	for i := 0; i < len(w.terminal); i++ {
		c := w.terminal[i]
		switch {
		case c == 0x1b && i+1 < len(w.terminal) && w.terminal[i+1] == '[':
			start := i + 2
			for i += 2; i < len(w.terminal) && (w.terminal[i] < 0x40 || w.terminal[i] > 0x7e); i++ {
			}
			if i >= len(w.terminal) {
				break
			}
			args := strings.Split(string(w.terminal[start:i]), ";")
			num := func(n int) int {
				if n < len(args) {
					if v, err := strconv.Atoi(args[n]); err == nil && v > 0 {
						return v
					}
				}
				return 1
			}
			switch w.terminal[i] {
			case 'H', 'f':
				row, col = num(0)-1, num(1)-1
			case 'G':
				col = num(0) - 1
			case 'C':
				col += num(0)
			case 'D':
				col -= num(0)
			case 'A':
				row -= num(0)
			case 'B':
				row += num(0)
			}
		case c == '\r':
			col = 0
		case c == '\n':
			row++
		case c >= 0x20 && c < 0x7f:
			row, col = min(max(row, 0), len(grid)-1), min(max(col, 0), 199)
			grid[row][col] = c
			col++
			if check() {
				return broke("the value stands on the screen")
			}
		}
	}
	return held("the value never stands whole on the screen")
}

func (w *world) nothingTyped(g got) got {
	if len(w.typed) > 0 {
		return broke("%d bytes are left for your shell to read", len(w.typed))
	}
	return g
}

// inFile looks for the stored value in a file of the project, or below it, in every
// encoding.
func (w *world) inFile(name string) got {
	top := filepath.Join(w.project, name)
	bad := ""
	_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		_ = os.Chmod(p, 0o600) // the owner's; root reads it anyway
		b, _ := os.ReadFile(p)
		for _, e := range encodings[:9] {
			if bytes.Contains(b, e.enc([]byte(w.values["stored"]))) {
				bad = e.name
			}
		}
		return nil
	})
	if bad != "" {
		return broke("the value is in the file after the session (%s)", bad)
	}
	if _, err := os.Stat(top); err != nil {
		return skip("the file was not written: %v", err)
	}
	return held("the file has a mask in its place")
}

// nameRecorded looks for the record of a file's name.
func (w *world) nameRecorded(g got) got {
	b, _ := os.ReadFile(filepath.Join(w.top, "events.jsonl"))
	for line := range bytes.Lines(b) {
		var r struct{ Type, Channel, Rule, Credential string }
		if json.Unmarshal(line, &r) == nil && r.Type == "leak" && r.Channel == "file" && r.Credential == nameStored && strings.Contains(r.Rule, "name") {
			return held("it is recorded; the name stays")
		}
	}
	return broke("no record says that the name of a file holds a value")
}

// lingering counts processes of this world's that still run, and ends them.
func (w *world) lingering() int {
	names, _ := os.ReadDir("/proc")
	n := 0
	for _, e := range names {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if bytes.Contains(b, []byte("@linger\x00"+w.nonce)) {
			n++
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return n
}

func (w *world) unchangedRepo(g got) got {
	b, err := os.ReadFile(filepath.Join(w.project, "guard.toml"))
	if err != nil || !bytes.Equal(b, w.repoFile) {
		return broke("guard.toml was changed or taken away")
	}
	return held("guard.toml is as it was (%s)", g.Why)
}

func (w *world) unchangedConfig(got) got {
	b, err := os.ReadFile(filepath.Join(w.home, ".config/guard/config.toml"))
	if err != nil || !bytes.Equal(b, w.configFile) {
		return broke("your settings were changed")
	}
	return held("the host's settings are as they were")
}

func (w *world) logVerifies(g got) got {
	if _, err := w.guard("", "audit", "verify"); err != nil {
		return broke("the log does not verify: %v", err)
	}
	return held("the log verifies after the session (%s)", g.Why)
}

// programStands looks for what the agent did to guard's program, or beside it.
func (w *world) programStands(g got) got {
	if w.boundary != "namespace" {
		return g
	}
	mark := filepath.Join(filepath.Dir(w.exe), "guard-attack-"+w.nonce)
	if _, err := os.Stat(mark); err == nil {
		_ = os.Remove(mark)
		return broke("a file was left beside guard's program")
	}
	if fi, err := os.Stat(w.exe); err != nil || !os.SameFile(fi, w.exeWas) {
		return broke("guard's program was taken away")
	}
	return held("guard's program and its folder are as they were")
}
