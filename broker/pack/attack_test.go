package pack

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strings"
	"testing"

	"guard"
	"guard/internal/testutil"
	"guard/matcher"
)

// knowing is the leak line's search, for a value that the test chooses.
func knowing(t *testing.T, values ...string) func() guard.Filter {
	t.Helper()
	var vs []guard.Value
	for i, v := range values {
		vs = append(vs, guard.Value{ID: guard.SecretID{Context: "default", Name: fmt.Sprint("known", i), Version: 1}, Secret: guard.NewSecret([]byte(v))})
	}
	m, err := matcher.New(vs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return func() guard.Filter {
		st := m.Stream()
		return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
			hits, _ := st.Write(p)
			if s == guard.End {
				hits = append(hits, st.Close()...)
			}
			if len(hits) > 0 {
				return nil, guard.Decision{Action: guard.Block, Rule: "leak", Secret: hits[0].ID}
			}
			return p, guard.Decision{Action: guard.Pass}
		}
	}
}

func sum(h hash.Hash, kind string, b []byte) []byte {
	fmt.Fprintf(h, "%s %d\x00", kind, len(b))
	h.Write(b)
	return h.Sum(nil)
}

func commit(root []byte, rest string) []byte {
	return []byte("tree " + hex.EncodeToString(root) + "\n" + rest)
}

const value = "kR7-tQ2x/Zp9+Lm4wVb8nYc3sHd6fGj1"

// file adds one file at a path, with its folders.
func file(p *testutil.Packfile, path, content string) (root []byte) {
	id, mode := p.Blob(content), "100644 "
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		id = p.Put(2, testutil.Tree(mode+parts[i], id))
		mode = "40000 "
	}
	return id
}

const who = "author A <a@example.com> 1700000000 +0000\ncommitter A <a@example.com> 1700000000 +0000\n"

func examine(t *testing.T, p *testutil.Packfile, open func() guard.Filter) error {
	t.Helper()
	s := spooled(t, p)
	defer s.Close()
	return (&pack{src: s, size: s.Size(), hash: 20}).each(func(byte, string) guard.Filter { return open() })
}

// Whatever an agent does with a value, the pack that holds it is refused, and
// the refusal says which object it is and where it lies.
func TestPackHides(t *testing.T) {
	open := knowing(t, value)
	b64 := base64.StdEncoding.EncodeToString([]byte(value))
	wrapped := "gpgsig -----BEGIN SSH SIGNATURE-----\n " + strings.Repeat("A", 70) + "\n " + base64.StdEncoding.EncodeToString([]byte("x" + value + strings.Repeat("y", 60)))[:70] + "\n " +
		base64.StdEncoding.EncodeToString([]byte("x" + value + strings.Repeat("y", 60)))[70:] + "\n -----END SSH SIGNATURE-----\n"
	empty := testutil.ObjectName("tree", nil)
	for what, c := range map[string]struct {
		build func(*testutil.Packfile)
		where string // expression
	}{
		"blob":                 {func(p *testutil.Packfile) { p.Put(1, commit(file(p, "a/b/conf.yml", "key: "+value), who+"\nx\n")) }, `^blob [0-9a-f]{12} \(a/b/conf.yml, in commit [0-9a-f]{12}\)$`},
		"blob before its tree": {func(p *testutil.Packfile) { file(p, "conf.yml", value) }, `^blob [0-9a-f]{12} \(\.\.\./conf.yml\)$`},
		"blob alone":           {func(p *testutil.Packfile) { p.Blob(value) }, `^blob [0-9a-f]{12} \(path unknown\)$`},
		"path with controls":   {func(p *testutil.Packfile) { p.Put(1, commit(file(p, "a\x1b]0;x\n\xff", value), who+"\nx\n")) }, `^blob [0-9a-f]{12} \("a\\x1b\]0;x\\n\\xff", in commit`},
		"long path": {func(p *testutil.Packfile) {
			p.Put(1, commit(file(p, strings.Repeat("d/", 500)+"f", value), who+"\nx\n"))
		}, `^blob [0-9a-f]{12} \(\.\.\.[d/]+/f, in commit`},
		"path deeper than is followed": {func(p *testutil.Packfile) {
			p.Put(1, commit(file(p, strings.Repeat("d/", 1500)+"f", value), who+"\nx\n"))
		}, `^blob [0-9a-f]{12} \(\.\.\./`},
		"inserted by a delta": {func(p *testutil.Packfile) {
			base := strings.Repeat("line\n", 30)
			at := p.Add(3, nil, []byte(base), len(base))
			d := delta(len(base), 100+len(value), [2]int{0, 50}, value, [2]int{100, 50})
			p.Add(6, ofs(p.Len()-at), d, len(d))
		}, `^blob`},
		"inserted in two pieces": {func(p *testutil.Packfile) {
			at := p.Add(3, nil, []byte("base"), 4)
			d := delta(4, len(value), value[:9], value[9:])
			p.Add(6, ofs(p.Len()-at), d, len(d))
		}, `^blob`},
		"letter by letter": {func(p *testutil.Packfile) {
			base := []byte("")
			for c := byte(0x20); c < 0x7f; c++ {
				base = append(base, c, '.')
			}
			at := p.Add(3, nil, base, len(base))
			var ops []any
			for i := range len(value) {
				ops = append(ops, [2]int{2 * int(value[i]-0x20), 1})
			}
			d := delta(len(base), len(value), ops...)
			p.Add(6, ofs(p.Len()-at), d, len(d))
		}, `^blob`},
		"a tree by a delta": {func(p *testutil.Packfile) {
			id := p.Blob("key: " + value)
			base := testutil.Tree("100644 a", id)
			at := p.Add(2, nil, base, len(base))
			made := testutil.Tree("100644 secret.ini", id)
			d := delta(len(base), len(made), string(made))
			p.Add(6, ofs(p.Len()-at), d, len(d))
			p.Put(1, commit(testutil.ObjectName("tree", made), who+"\nx\n"))
		}, `^blob [0-9a-f]{12} \(`},
		"the second of two equal objects": {func(p *testutil.Packfile) { p.Blob("x"); p.Blob("x"); p.Blob(value); p.Blob(value) }, `^blob`},
		"a delta of equal bases, ahead of them": {func(p *testutil.Packfile) {
			d := delta(4, 4+len(value), [2]int{0, 4}, value)
			p.Add(7, testutil.ObjectName("blob", []byte("base")), d, len(d))
			p.Blob("base")
			p.Blob("base")
		}, `^blob`},
		"cut by folders":      {func(p *testutil.Packfile) { p.Put(1, commit(file(p, "x/"+value, "x"), who+"\nx\n")) }, `^the path of object [0-9a-f]{12}$`},
		"commit message":      {func(p *testutil.Packfile) { p.Put(1, commit(empty, who+"\nkey "+value)) }, `^commit [0-9a-f]{12}$`},
		"author":              {func(p *testutil.Packfile) { p.Put(1, commit(empty, "author "+value+" <a@b> 1 +0000\n\nx")) }, `^commit`},
		"committer's address": {func(p *testutil.Packfile) { p.Put(1, commit(empty, who[:40]+"committer A <"+value+"@b> 1 +0000\n\nx")) }, `^commit`},
		"author in an encoded word": {func(p *testutil.Packfile) {
			p.Put(1, commit(empty, "author =?utf-8?b?"+b64+"?= <a@b> 1 +0000\nencoding utf-8\n\nx"))
		}, `^commit`},
		"message in UTF-16": {func(p *testutil.Packfile) {
			var u []byte
			for i := range len(value) {
				u = append(u, value[i], 0)
			}
			p.Put(1, commit(empty, who+"encoding utf-16\n\n"+string(u)))
		}, `^commit`},
		"a header of its own": {func(p *testutil.Packfile) { p.Put(1, commit(empty, who+"x-key "+value+"\n\nx")) }, `^commit`},
		"signature":           {func(p *testutil.Packfile) { p.Put(1, commit(empty, who+wrapped+"\nx")) }, `^commit`},
		"merged tag": {func(p *testutil.Packfile) {
			p.Put(1, commit(empty, who+"mergetag object "+strings.Repeat("0", 40)+"\n type commit\n tag v\n \n "+value+"\n\nx"))
		}, `^commit`},
		"tag message": {func(p *testutil.Packfile) {
			p.Put(4, []byte("object "+strings.Repeat("0", 40)+"\ntype commit\ntag v\ntagger A <a@b> 1 +0000\n\n"+value))
		}, `^tag [0-9a-f]{12}$`},
		"compressed in a blob": {func(p *testutil.Packfile) {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			fmt.Fprintf(z, "some text\nkey = %s\nmore text\n", value)
			z.Close()
			p.Put(1, commit(file(p, "dump.gz", b.String()), who+"\nx"))
		}, `^blob [0-9a-f]{12} \(dump.gz, in`},
		"base64 in a blob": {func(p *testutil.Packfile) { p.Blob("auth: " + b64) }, `^blob`},
	} {
		p := &testutil.Packfile{}
		c.build(p)
		var hit *objectHit
		if err := examine(t, p, open); !errors.As(err, &hit) {
			t.Errorf("%s: %v", what, err)
		} else if !regexp.MustCompile(c.where).MatchString(hit.object) || strings.Contains(hit.object, value) {
			t.Errorf("%s: found in %s", what, strings.ReplaceAll(hit.object, value, "[value]"))
		}
	}
}

func TestPackFileName(t *testing.T) {
	v := strings.ReplaceAll(value, "/", "_")
	p := &testutil.Packfile{}
	p.Put(2, testutil.Tree("100644 "+v, testutil.ObjectName("blob", nil)))
	var hit *objectHit
	if err := examine(t, p, knowing(t, v)); !errors.As(err, &hit) || strings.Contains(hit.object, v) {
		t.Error("a file's name:", err)
	}
}

// What is not found: nobody who sees one object at a time can know.
func TestPackDoesNotSee(t *testing.T) {
	open := knowing(t, value)
	p := &testutil.Packfile{}
	p.Blob("first " + value[:16])
	p.Blob(value[16:] + " second")
	if err := examine(t, p, open); err != nil {
		t.Errorf("a value in two blobs is found now (%v): say so in doc.go", err)
	}
}

// A pack that git would not write does not go, whatever is in it.
func TestPackContradicts(t *testing.T) {
	raw := func(change func(b []byte) []byte) error {
		p := &testutil.Packfile{}
		p.Blob("harmless")
		s := spooled(t, p)
		defer s.Close()
		b := make([]byte, s.Size())
		s.ReadAt(b, 0)
		b = change(b)
		s2 := NewSpool(t.TempDir(), 1<<20)
		defer s2.Close()
		s2.Write(b)
		return (&pack{src: s2, size: s2.Size(), hash: 20}).each(func(byte, string) guard.Filter { return knowing(t, value)() })
	}
	if err := raw(func(b []byte) []byte { return b }); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func([]byte) []byte{
		"a value for a checksum": func(b []byte) []byte { return append(b[:len(b)-20], value[:20]...) },
		"a second pack":          func(b []byte) []byte { return append(b, b...) },
		"a second pack before the checksum": func(b []byte) []byte {
			return append(append(bytes.Clone(b[:len(b)-20]), b...), b[len(b)-20:]...)
		},
		"garbage after a stream": func(b []byte) []byte {
			return append(append(bytes.Clone(b[:len(b)-20]), value...), b[len(b)-20:]...)
		},
		"cut short":      func(b []byte) []byte { return b[:len(b)-1] },
		"a broken check": func(b []byte) []byte { b[len(b)-21] ^= 1; return b },
		"too many":       func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], 1<<31); return b },
		"none of many":   func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], 0); return b },
		"version 4":      func(b []byte) []byte { b[7] = 4; return b },
	} {
		if err := raw(change); err == nil {
			t.Errorf("%s goes", what)
		}
	}
	if err := raw(func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], maxObjects+1); return b }); !errors.Is(err, errTooMany) {
		t.Errorf("too many objects: %v", err)
	}
	// A dictionary that the other side might have, too.
	p := &testutil.Packfile{}
	p.N = 1
	p.WriteByte(3<<4 | 4)
	z, err := zlib.NewWriterLevelDict(p, 6, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	z.Write([]byte(value[:4]))
	z.Close()
	if err := examine(t, p, knowing(t, value)); err == nil {
		t.Error("a preset dictionary goes")
	}
}

// A delta on a delta on a delta, in any order and by any kind of reference, costs
// what its results cost.
func TestPackChains(t *testing.T) {
	const n = 2000
	base := []byte(strings.Repeat("0123456789abcdef", 64))
	contents := [][]byte{base}
	for i := range n {
		last := contents[i]
		contents = append(contents, append([]byte(fmt.Sprintf("%06d", i)), last[6:]...))
	}
	p := &testutil.Packfile{}
	for i := n; i > 0; i-- { // the last one first
		d := delta(len(base), len(base), string(contents[i][:6]), [2]int{6, len(base) - 6})
		p.Add(7, testutil.ObjectName("blob", contents[i-1]), d, len(d))
	}
	p.Add(3, nil, base, len(base))
	if err := examine(t, p, knowing(t, value)); err != nil {
		t.Error(err)
	}
	if err := examine(t, p, knowing(t, string(contents[n][:60]))); err == nil {
		t.Error("the end of the chain was not judged")
	}
}

func TestPackSHA256(t *testing.T) {
	blob := []byte("key = " + value)
	id := sum(sha256.New(), "blob", blob)
	root := testutil.Tree("100644 conf", id)
	rootID := sum(sha256.New(), "tree", root)
	p := &testutil.Packfile{}
	p.Add(3, nil, blob, len(blob))
	p.Add(2, nil, root, len(root))
	c := commit(rootID, who+"\nx\n")
	p.Add(1, nil, c, len(c))
	d := delta(len(blob), 5, [2]int{0, 5})
	p.Add(7, id, d, len(d))
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("PACK"), 2), p.N)
	all := append(head, p.Bytes()...)
	check := sha256.Sum256(all)
	s := NewSpool(t.TempDir(), 1<<20)
	defer s.Close()
	s.Write(append(all, check[:]...))
	open := knowing(t, value)
	err := (&pack{src: s, size: s.Size(), hash: 32}).each(func(byte, string) guard.Filter { return open() })
	var hit *objectHit
	if !errors.As(err, &hit) || !strings.HasPrefix(hit.object, "blob "+hex.EncodeToString(id)[:12]+" (conf, in commit ") {
		t.Errorf("%v", err)
	}
	if err := (&pack{src: s, size: s.Size(), hash: 20}).each(func(byte, string) guard.Filter { return open() }); err == nil || errors.As(err, &hit) {
		t.Errorf("read as one of SHA-1: %v", err)
	}
}
