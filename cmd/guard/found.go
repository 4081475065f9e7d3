package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guard"
	"guard/policy"
	"guard/vault"
)

// A session also guards values that nobody stored: those in the environment, in the
// project's files and in the files where tools keep credentials. The vault lends
// them to the session, under names that begin with foundPrefix, so that they are
// shown as placeholders, searched for and kept from the network as stored ones are,
// and are on no disk. Only what is surely a credential is taken: a word that is none
// would be masked wherever the agent prints it.

const foundPrefix = "found."

// environment is the "file" of what the environment holds.
const environmentFile = "the environment"

// foundValue is one of them.
type foundValue struct {
	name  string // of the credential
	label string // what its first place calls it
	vars  []string
	files []string // "~/.netrc line 3"
	path  string   // of the first file; "": it is in the environment alone
	hosts []string
	model bool // given in the environment, and usable at a model's API
}

// finder is what a session looks with.
type foundFinder struct {
	s      *session
	judge  *judge
	show   []string
	forced map[string]bool           // variables that the user calls credentials
	known  map[string]guard.SecretID // what is in the vault, by fingerprint
	taken  map[string]guard.SecretID // what was found, likewise
	key    []byte                    // of the fingerprints
	sizes  map[int]bool              // lengths of what is in both
}

// find looks for values that the vault does not have, and has it lend them. loaded is
// what the scanner looks for already; what it is to look for besides is returned.
func (s *session) find(loaded []guard.Value) ([]guard.Value, error) {
	forced := map[string]bool{}
	for _, a := range append(slices.Clone(s.flags.allow), s.flags.deny...) {
		if name, ok := strings.CutPrefix(a, "env:"); ok {
			forced[name[:varEnd(name)]] = true
		}
	}
	if s.flags.find == "off" {
		if len(forced) > 0 {
			return nil, usagef("--allow env:NAME is about a value that guard finds, and --find off looks for none")
		}
		return nil, nil
	}
	show, err := s.app.showList(s.flags.show)
	if err != nil {
		return nil, err
	}
	f := &foundFinder{s: s, show: show, forced: forced, known: map[string]guard.SecretID{}, taken: map[string]guard.SecretID{}, sizes: map[int]bool{}, key: make([]byte, 32)}
	_, _ = rand.Read(f.key) // never fails (crypto/rand)
	f.judge = &judge{random: true, a: s.app, v: s.vault, context: s.info.Context, own: map[string]string{}, have: map[string]guard.Credential{}, names: map[string]bool{}, envs: map[string]bool{}}
	for _, v := range loaded {
		f.known[v.Secret.Fingerprint(f.key)] = v.ID
		f.sizes[v.Secret.Len()] = true
	}
	items, wipe, err := f.items()
	defer wipe()
	if err != nil {
		return nil, err
	}
	named := map[string]string{} // variable -> credential
	// What holds another one is hidden with it.
	slices.SortStableFunc(items, func(a, b *importItem) int { return a.value.Len() - b.value.Len() })
	for _, it := range items {
		if err := f.take(it, named); err != nil {
			return nil, err
		}
	}
	if err := f.resolve(named); err != nil {
		return nil, err
	}
	return s.vault.LentValues(s.info.Context)
}

// items are the values that were found, each once.
func (f *foundFinder) items() (items []*importItem, wipe func(), err error) {
	files := []*importFile{{path: environmentFile, format: "environ", own: true, data: []byte(strings.Join(os.Environ(), "\x00"))}}
	files = append(files, f.s.app.foundFiles(f.s.dir, f.s.home)...)
	byValue := map[string]*importItem{}
	var values []string
	wipe = func() {
		for _, it := range items {
			it.value.Wipe()
			for _, pl := range it.places {
				clear(pl.c.value)
			}
		}
		for _, file := range files {
			clear(file.data)
		}
		if f.judge.formats != nil {
			f.judge.formats.Close()
		}
	}
	for _, file := range files {
		for _, c := range importParser(file.format)(file.data) {
			if f.shown(file.path, c.label) {
				continue
			}
			it, print, err := f.judge.item(file, c)
			if err != nil {
				return items, wipe, err
			}
			if it == nil {
				clear(c.value)
				continue
			}
			if first := byValue[print]; first != nil {
				first.join(it)
				it.value.Wipe()
				continue
			}
			byValue[print] = it
			items = append(items, it)
			if len(c.value) >= 8 {
				values = append(values, string(c.value))
			}
		}
	}
	for _, it := range items {
		it.name = foundLabel(it)
		f.judge.finish(it, values)
	}
	return items, wipe, nil
}

// take has the vault lend one item, if it is surely a credential and not a stored one.
func (f *foundFinder) take(it *importItem, named map[string]string) error {
	fv := &foundValue{label: it.places[0].c.label}
	force := false
	for _, pl := range it.places {
		if pl.file.path == environmentFile {
			fv.vars = append(fv.vars, pl.c.label)
			force = force || f.forced[pl.c.label]
			continue
		}
		if fv.path == "" {
			fv.path = pl.file.path
		}
		fv.files = append(fv.files, fmt.Sprintf("%s line %d", f.s.shownHere(pl.file.path), pl.line))
	}
	if it.skip != "" || !force && !sure(it) {
		return nil
	}
	if pass := passwordOf(it.places[0].c.value); pass != nil && it.kind == "generic" { // what guard sees in base64, and writes there
		it.value.Wipe()
		it.value = guard.NewSecret(pass)
	}
	if id, ok := f.holds(it.places[0].c.value, isURLKind(it.kind)); ok {
		for _, v := range fv.vars {
			named[v] = id.Name
		}
		return nil
	}
	k, _ := vault.KindByName(it.kind)
	c := guard.Credential{Context: f.s.info.Context, Name: foundName(it.name), Kind: it.kind, Hosts: it.hosts, In: it.in, User: it.user}
	if c.User == "" {
		c.User = k.User
	}
	if len(c.In) == 0 {
		c.In = k.In
	}
	if it.foreign { // the project's file names them, not the user
		c.Hosts = nil
		if !isURLKind(it.kind) {
			c.Hosts = slices.Clone(k.Hosts)
		}
	}
	if len(fv.vars) > 0 && k.Model {
		c.Hosts = append(slices.Clone(c.Hosts), f.s.modelHosts(k)...)
	}
	// A name that the vault has is another credential's.
	for n, base := 2, c.Name; ; n++ {
		_, err := f.s.vault.Find(c.Context, c.Name)
		if errors.Is(err, vault.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		suffix := fmt.Sprintf("-%d", n)
		c.Name = base[:min(len(base), 64-len(suffix))] + suffix
	}
	lent, err := f.s.vault.Lend(c, it.value)
	switch {
	case err != nil && force:
		return err
	case err != nil:
		return nil // nothing that a session could look for
	}
	f.taken[it.value.Fingerprint(f.key)] = lent.ID()
	f.sizes[it.value.Len()] = true
	fv.name, fv.hosts = lent.Name, lent.Hosts
	fv.model = len(fv.vars) > 0 && k.Model && len(lent.Hosts) > 0
	for _, v := range fv.vars {
		named[v] = lent.Name
	}
	f.s.found = append(f.s.found, fv)
	return nil
}

// holds says which value is in v, as it is or in base64: the vault's, or, unless
// v is a URL, which is worth more than the password in it, one that was found.
func (f *foundFinder) holds(v []byte, isURL bool) (guard.SecretID, bool) {
	plain := [][]byte{v}
	if dec, ok := decoded(v); ok {
		plain = append(plain, dec)
	}
	for _, p := range plain {
		if len(p) > foundHolder {
			p = p[:foundHolder]
		}
		for n := range f.sizes {
			for i := 0; i+n <= len(p); i++ {
				print := guard.NewSecret(p[i : i+n]).Fingerprint(f.key)
				if id, ok := f.known[print]; ok {
					return id, true
				}
				if id, ok := f.taken[print]; ok && !isURL {
					return id, true
				}
			}
		}
	}
	return guard.SecretID{}, false
}

// foundHolder is how far into a value it is looked for another one, in bytes.
const foundHolder = 512

// decoded is what v is the base64 of, if that is text.
func decoded(v []byte) ([]byte, bool) {
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(string(v)); err == nil && len(b) >= 8 && !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r > '~' }) {
			return b, true
		}
	}
	return nil, false
}

// passwordOf is the password of NAME:PASSWORD in base64, as HTTP's Basic has it; nil
// for anything else.
func passwordOf(v []byte) []byte {
	b, ok := decoded(v)
	if !ok {
		return nil
	}
	_, pass, ok := bytes.Cut(b, []byte(":"))
	if !ok || !random(pass) {
		return nil
	}
	return bytes.Clone(pass)
}

// foundLabel is what an item is named after, so that it has the same name and
// placeholder next time: its variable, that of its kind first, or what the file calls it.
func foundLabel(it *importItem) string {
	label := ""
	for _, pl := range it.places {
		if pl.file.path != environmentFile {
			continue
		}
		if kind, ok := kindByEnv(pl.c.label); ok && kind == it.kind {
			return pl.c.label
		}
		if label == "" || pl.c.label < label {
			label = pl.c.label
		}
	}
	switch pl := it.places[0]; {
	case label != "":
		return label
	case pl.file.format == "ssh":
		return it.name
	default:
		return pl.c.label
	}
}

// foundName marks a name as that of a found value.
func foundName(name string) string {
	name = foundPrefix + name
	return strings.TrimRight(name[:min(len(name), 64)], "-._")
}

// modelHosts are the hosts that the environment leads programs of a model's API to,
// instead of its own: who gave the key to this command gave the address with it.
func (s *session) modelHosts(k vault.Kind) (out []string) {
	for _, v := range k.ModelURL {
		u, err := url.Parse(s.app.getenv(v))
		if err == nil && u.Scheme == "https" && u.User == nil && policy.CheckHost(u.Host) == nil && !strings.HasPrefix(u.Host, "*") {
			out = append(out, u.Host)
		}
	}
	return out
}

// resolve puts names in the place of env:NAME, and allows what the environment
// gives to this very command to reach its model with.
func (f *foundFinder) resolve(named map[string]string) error {
	for _, list := range []*[]string{&f.s.flags.allow, &f.s.flags.deny} {
		*list = slices.Clone(*list)
		for i, a := range *list {
			rest, ok := strings.CutPrefix(a, "env:")
			if !ok {
				continue
			}
			v, more := rest[:varEnd(rest)], rest[varEnd(rest):]
			name, ok := named[v]
			if !ok {
				if f.s.app.getenv(v) == "" {
					return fmt.Errorf("--allow env:%s: the environment has no such variable", v)
				}
				return fmt.Errorf("--allow env:%s: its value has no form of a credential that guard knows: guard secret set NAME --from-env %s --host HOST stores it", v, v)
			}
			if cr, err := f.s.vault.Find(f.s.info.Context, name); err == nil && len(cr.Hosts) == 0 {
				return fmt.Errorf("--allow env:%s: guard does not know where it belongs: guard secret set NAME --from-env %s --host HOST says so", v, v)
			}
			(*list)[i] = name + more
		}
	}
	for _, fv := range f.s.found {
		if fv.model && !f.s.flags.allows(fv.name) && !slices.Contains(f.s.flags.deny, fv.name) {
			f.s.flags.allow = append(f.s.flags.allow, fv.name)
		}
	}
	return nil
}

// varEnd is where in VAR[:SCOPE][,LIMIT...] the variable's name ends.
func varEnd(s string) int {
	if i := strings.IndexAny(s, ":,"); i >= 0 {
		return i
	}
	return len(s)
}

// shown says that the user wants a place to be seen as it is.
func (f *foundFinder) shown(path, label string) bool {
	return slices.ContainsFunc(f.show, func(p string) bool {
		return label != "" && p == label || filepath.IsAbs(p) && within(path, p)
	})
}

// showList is what --show and the user's own file say: names of variables as they
// are, paths canonical.
func (a *app) showList(flags []string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(a.configDir(), "show"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the list of what is shown: %w", err)
	}
	list := slices.Clone(flags)
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	for i, p := range list {
		if shellName.FindString(p) == p && !strings.ContainsRune(p, filepath.Separator) {
			if _, err := os.Lstat(p); err != nil || strings.ToUpper(p) == p {
				continue // a variable
			}
		}
		if rest, ok := strings.CutPrefix(p, "~/"); ok {
			p = filepath.Join(a.userHome(), rest)
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		list[i] = abs
	}
	return list, nil
}

// sure says that an item is a credential and nothing that is said in other places.
func sure(it *importItem) bool {
	c := it.places[0].c
	v := c.value
	switch {
	case len(v) < 12:
		return false
	case it.form != "", it.kind == "ssh-key", it.kind == "gcp-service-account":
		return true
	}
	if n := vault.PrefixLength(it.value); n > 0 && len(v)-n >= 16 {
		return random(v[n:])
	}
	if _, pass, ok := vault.Part(string(v)); ok {
		return len(pass) >= 12 && random([]byte(pass))
	}
	if c.named {
		return tellingName(c.label) && random(v)
	}
	// The file is one of credentials.
	return random(v) || len(v) >= 20 && bytes.ContainsAny(v, "0123456789")
}

// notInToken says that a character ends a token.
func notInToken(r rune) bool {
	return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_-+/=.", r))
}

// random says that b was drawn, and not written by a person: digits among letters,
// or capitals among small ones, again and again.
func random(b []byte) bool {
	if len(b) < 12 {
		return false
	}
	class := func(c byte) int {
		switch {
		case c >= '0' && c <= '9':
			return 1
		case c >= 'a' && c <= 'z':
			return 2
		case c >= 'A' && c <= 'Z':
			return 3
		}
		return 0
	}
	seen := map[byte]bool{}
	digit, letter, last := 0, 0, 0
	for _, c := range b {
		seen[c] = true
		now := class(c)
		switch {
		case now == 0, last == 0, now == last: // words and numbers between signs are what people write
		case now == 1 || last == 1:
			digit++
		default:
			letter++
		}
		last = now
	}
	return len(seen) >= 8 && (digit >= 3 || letter*3 >= len(b))
}
