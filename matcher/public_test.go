package matcher

import (
	"testing"

	"guard"
)

// kept is how many bytes of text a pause holds back.
func kept(m *Matcher, text string) int {
	s := m.Stream()
	defer s.Close()
	s.Write([]byte(text))
	return int(s.pos - s.Pause())
}

// What everybody may see of a value is no reason to hold back a prompt that ends in it;
// eight bytes of the rest are.
func TestPauseLetsGoWhatIsPublic(t *testing.T) {
	r := newRand(150)
	const prefix = "sk-ant-" + "api03-"
	rest := randString(r, alphabet, 40)
	whole := val("v", prefix+rest)
	bare := val("v", rest)
	placeholder := guard.Value{ID: id("other"), Class: guard.Placeholder, Secret: guard.NewSecret([]byte(prefix + randString(r, alphabet, 40)))}
	m := mustNew(t, whole, placeholder, bare)
	if n := kept(m, "Paste a key ("+prefix+rest[:begun]); n == 0 {
		t.Fatal("nothing of a value is held back")
	}
	for _, inside := range []string{"", "\x1b[1m", "\u200b", "\n", `""`} {
		for n := begun; n <= len(prefix)+begun; n++ {
			text := (prefix + rest)[:n]
			text = "Paste a key (" + text[:4] + inside + text[4:]
			if got, want := kept(m, text), n-len(prefix) >= begun; (got > 0) != want {
				t.Errorf("%q: %d bytes are held back", text, got)
			}
			if got := kept(m, text+"-a-"); got > 0 {
				t.Errorf("%q: %d bytes are held back", text+"-a-", got)
			}
		}
	}
	for n := begun; n < len(rest); n++ {
		if got := kept(m, "> "+rest[:n]); got < n {
			t.Errorf("%d bytes of %d of the rest are held back", got, n)
		}
	}
	// The value itself is found all the same, whole where nothing of it was out.
	for n := range len(prefix) + len(rest) + 1 {
		s := m.Stream()
		text := "key: " + prefix + rest
		hits, _ := s.Write([]byte(text[:5+n]))
		to := s.Pause()
		more, _ := s.Write([]byte(text[5+n:]))
		hits = append(hits, more...)
		if len(hits) == 0 || hits[0].End != int64(len(text)) {
			t.Errorf("cut at %d: %v", n, hits)
		}
		if out := to - 5 - int64(len(prefix)); out >= begun && n < len(text)-5 {
			t.Errorf("cut at %d: %d bytes of the value are out", n, out)
		}
		s.Close()
	}
}

// Nothing is public on any other word than that.
func TestPauseHoldsWhatNobodySaysIsPublic(t *testing.T) {
	r := newRand(151)
	const prefix = "sk-ant-" + "api03-"
	rest := randString(r, alphabet, 40)
	whole, bare := val("v", prefix+rest), val("v", rest)
	dead := bare
	dead.Class = guard.Retired
	for what, values := range map[string][]guard.Value{
		"alone": {whole}, "another name": {whole, val("w", rest)}, "another class": {whole, dead}, "not its end": {whole, val("v", rest[:30])},
		"too long to be public": {whole, val("v", rest[30:])},
	} {
		if n := kept(mustNew(t, values...), "key: "+prefix); n < len(prefix) {
			t.Errorf("%s: %d bytes are held back", what, n)
		}
	}
	// A value of somebody else's begins in what is public, and with it.
	m := mustNew(t, whole, bare, val("w", prefix[7:]+rest[:2]+randString(r, alphabet, 20)))
	if n := kept(m, "key: "+prefix+rest[:2]); n < begun {
		t.Errorf("%d bytes of another value are held back", n)
	}
	// What comes in later, and goes.
	m = mustNew(t, val("x", randString(r, alphabet, 20)))
	if err := m.Add(whole, bare); err != nil {
		t.Fatal(err)
	}
	if n := kept(m, prefix); n > 0 {
		t.Errorf("added: %d bytes are held back", n)
	}
	if err := m.Add(val("y", randString(r, alphabet, 20))); err != nil {
		t.Fatal(err)
	}
	if n := kept(m, prefix); n > 0 {
		t.Errorf("another one added: %d bytes are held back", n)
	}
	if err := m.Set([]guard.Value{val("v", prefix+rest)}); err != nil {
		t.Fatal(err)
	}
	if n := kept(m, prefix); n < len(prefix) {
		t.Errorf("gone: %d bytes are held back", n)
	}
	m.Close()
	s := m.Stream()
	if s.Write([]byte("x")); s.Pause() != 0 {
		t.Error("a closed matcher lets go")
	}
}
