package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"guard"
	"guard/internal/scan"
	"guard/matcher"
	"guard/matcher/formats"
	"guard/vault"
)

// wanted is what a scan looks for, and holds open.
type wanted struct{ closers []func() }

func (w *wanted) close() {
	for _, f := range slices.Backward(w.closers) {
		f()
	}
}

// searchFor opens the vault and compiles values and formats into so.
func (a *app) searchFor(o *scanFlags, so *scan.Options) (_ *wanted, err error) {
	w := &wanted{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	var placeholders *matcher.Matcher
	if !o.noValues {
		if placeholders, err = a.knownValues(o, so, w); err != nil {
			return nil, err
		}
	}
	if o.noFormats {
		return w, nil
	}
	rules, err := a.loadRules(o.rules)
	if err != nil {
		return nil, err
	}
	fo := formats.Options{Rules: rules, CacheDir: a.cacheDir()}
	if placeholders != nil {
		fo.Ignore = func(b []byte) bool { return len(placeholders.Scan(b)) > 0 }
	}
	if so.Formats, err = formats.New(fo); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() { so.Formats.Close() })
	so.Key = sync.OnceValue(a.scanKey)
	return w, nil
}

// knownValues puts the vault's values into so, and returns a search for its
// placeholders. Without a vault only formats are looked for; one that cannot be
// opened is an error.
func (a *app) knownValues(o *scanFlags, so *scan.Options, w *wanted) (*matcher.Matcher, error) {
	v, err := a.openVault()
	if errors.Is(err, vault.ErrNoVault) && !o.noFormats {
		a.say("there is no vault here: looking for formats only")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, v.Close)
	values, err := v.Values("")
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, val := range values {
			val.Secret.Wipe()
		}
	}()
	key, err := v.Key("fingerprint")
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	credentials, err := v.List("")
	if err != nil {
		return nil, err
	}
	seals, err := v.SealedContexts()
	if err != nil {
		return nil, err
	}
	for _, s := range seals {
		if !s.Open {
			a.say("context %s is sealed: its values are not looked for", s.Context)
		}
	}
	known := map[guard.SecretID]scan.Known{}
	for _, c := range credentials {
		k := scan.Known{Kind: c.Kind}
		if len(c.Hosts) > 0 {
			k.Provider = c.Hosts[0]
		}
		known[guard.SecretID{Context: c.Context, Name: c.Name}] = k
	}
	var look, stand []guard.Value
	short := 0
	for _, val := range values {
		switch {
		case matcher.Refuse(val.Secret) != nil:
			if val.Class < guard.Placeholder {
				short++
			}
		case val.Class < guard.Placeholder:
			k := known[guard.SecretID{Context: val.ID.Context, Name: val.ID.Name}]
			k.Fingerprint = val.Secret.Fingerprint(key.Reveal())
			known[val.ID] = k
			look = append(look, val)
		default:
			stand = append(stand, val)
		}
	}
	if short > 0 {
		a.say("%s cannot be told from other text and are not looked for", plural(int64(short), "value"))
	}
	if len(look) == 0 {
		if o.noFormats {
			return nil, errors.New("the vault holds no value to look for: guard secret set NAME")
		}
		a.say("the vault holds no value to look for: looking for formats only")
	} else {
		if so.Values, err = matcher.New(look); err != nil {
			return nil, err
		}
		w.closers = append(w.closers, func() { so.Values.Close() })
	}
	so.Known = func(id guard.SecretID) scan.Known { return known[id] }
	if len(stand) == 0 {
		return nil, nil
	}
	m, err := matcher.New(stand)
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() { m.Close() })
	return m, nil
}

// cacheDir is where what can be made again is kept; "" where there is no home.
func (a *app) cacheDir() string {
	if d := a.getenv("XDG_CACHE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "guard")
	}
	if h := a.userHome(); h != "" {
		return filepath.Join(h, ".cache", "guard")
	}
	return ""
}

// scanKey is the key for fingerprints of formats: the same with any vault and
// with none, so that allow-lists go on holding. It is made when it is first needed.
func (a *app) scanKey() []byte {
	path := filepath.Join(a.configDir(), "scan.key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == 32 {
		return key
	}
	key = make([]byte, 32)
	rand.Read(key)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = writeFile(path, key)
	}
	if err != nil {
		a.say("fingerprints of this run are its own, as %s cannot be kept: %v", path, err)
	}
	return key
}

// visible makes a text that others chose safe to print in one line: what is not
// printable, or turns the direction of writing, is escaped.
func visible(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, invisible) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case invisible(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

func invisible(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }

// number writes n with commas.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// size writes a number of bytes for a person.
func size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

func sortedKeys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
