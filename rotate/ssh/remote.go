package ssh

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/rotate"
)

// Scripts are read by /bin/sh from its input; only names that match account and path,
// and public keys, are put into them. Each says "guard-done" at its end: a forced command
// would succeed without having done anything.

// editScript changes files of authorized keys. $old and $new are "TYPE BASE64".
const editScript = `
umask 077
cd || exit 5
found=
for f in $files; do
	[ -f "$f" ] || continue
	f=$(readlink -f "$f") || exit 6
	if command -v flock >/dev/null 2>&1; then
		exec 9<"${f%/*}" && flock -w 2 9 # who holds it for longer does not stop this
	fi
	if [ "$do" = check ]; then
		grep -qF "${old#* }" "$f" && found=1
		[ -w "$f" ] && [ -w "${f%/*}" ] || exit 6
		continue
	fi
	t=$f.guard-$intent
	cp -p "$f" "$t" 2>/dev/null || exit 6
	awk -v act="$do" -v old="${old#* }" -v new="$new" -v only="$only" '
		function is(blob,  i) {
			if ($1 ~ /^#/) return 0
			for (i = 2; i <= NF; i++) if ($i == blob && $(i-1) ~ /^(ssh|ecdsa|sk)-/) return 1
			return 0
		}
		function with(  at, head) {
			at = index($0, old)
			head = substr($0, 1, at - 1)
			sub(/[^ \t]+[ \t]+$/, "", head)
			return head new substr($0, at + length(old))
		}
		BEGIN { blob = new; sub(/^[^ ]* /, "", blob) }
		NR == FNR { if (is(blob)) has = 1; next }
		is(blob) { print; next }
		is(old) {
			if (act == "add") print
			if (!has) print with()
			has = 1
			next
		}
		only == "" || act == "add" { print }
	' "$f" "$f" >"$t" || { rm -f "$t"; exit 6; }
	grep -qF "${new#* }" "$t" && found=1
	if cmp -s "$f" "$t"; then
		rm -f "$t"
	else
		sync "$t" 2>/dev/null
		mv -f "$t" "$f" || { rm -f "$t"; exit 6; }
	fi
	exec 9<&-
done
[ -n "$found" ] || [ "$do" = remove ] || exit 3
echo guard-done
`

// krlScript adds $old to the list of revoked keys.
const krlScript = `
umask 022
t=$krl.guard-$intent
if [ -s "$krl" ]; then
	cp -p "$krl" "$t" && printf '%s\n' "$old" | ssh-keygen -q -k -u -f "$t" -
else
	printf '%s\n' "$old" | ssh-keygen -q -k -f "$t" -
fi >/dev/null 2>&1 && sync "$t" && mv -f "$t" "$krl" || { rm -f "$t"; exit 7; }
echo guard-done
`

// endScript ends the sessions of $user, but for this one and those of $spare. The
// monitor of a session, which is root's, is left to end by itself and clean up; one
// that has no session yet (a login under way) is killed, as is what does not end.
const endScript = `
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
uid=$(id -u "$user") && me=$(id -u) || exit 8
own= p=$$
while [ "${p:-0}" -gt 1 ]; do
	own="$own $p"
	p=$(ps -o ppid= -p "$p" | tr -d ' ')
done
others= # sessions that sshd says another key opened
list() {
	ps -A -o pid= -o ppid= -o uid= -o args= | awk -v user="$user" -v uid="$uid" -v me="$me" -v own="$own" -v spare="$spare" -v others="$others" -v round="$1" '
		function set(s, to,  n, i, a) { n = split(s, a, " "); for (i = 1; i <= n; i++) to[a[i]] = 1 }
		function under(p, of) { while (p > 1) { if (p in of) return 1; p = parent[p] } return 0 }
		BEGIN { set(own, mine); set(spare " " others, left) }
		{
			pid = $1; parent[pid] = $2; owner = $3
			t = $0; sub(/^ *[0-9]+ +[0-9]+ +[0-9]+ +/, "", t)
			if (t !~ /^sshd(-session|-auth)?: / || owner != uid && owner != 0) next
			sub(/^[^ ]+ /, "", t)
			name = t; sub(/[@ ].*$/, "", name)
			if (name != user) next
			if (me != 0 && owner != me) next
			session[pid] = 1
			monitor[pid] = t ~ /\[priv\]/ && owner != uid
		}
		END {
			for (p in left) for (q = p; q > 1 && q in parent; q = parent[q]) if (q in session) spared[q] = 1
			for (p in session) if (!(p in mine) && !(p in spared) && !under(p, left)) go[p] = 1
			for (p in go) if (parent[p] in go) has[parent[p]] = 1
			for (p in parent) if (under(p, go) && !(p in mine)) {
				kind = p in go ? "session" : "child"
				if (p in go && monitor[p] && has[p] && round < 20) kind = "monitor"
				print kind, p
			}
		}'
}
of() { # the key that opened the session of process $1, as far as sshd says
	f=$(tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | sed -n 's/^SSH_USER_AUTH=//p')
	[ -n "$f" ] && [ -r "$f" ] || return 1
	if [ -n "$fingerprint" ]; then
		grep -q '^publickey .*-cert-' "$f" || { echo other; return; }
		sed -n 's/^publickey //p' "$f" | ssh-keygen -L -f - 2>/dev/null | grep -qF "$fingerprint" || echo other
	else
		grep -qF "${old#* }" "$f" || echo other
	fi
}
if [ -n "$bykey" ]; then
	for p in $(list 1 | sed -n 's/^child //p'); do
		[ "$(of "$p")" != other ] || others="$others $p"
	done
fi
n=0
while :; do
	n=$((n + 1))
	all=$(list "$n") || exit 8
	[ -n "$all" ] || break
	[ "$n" -lt 400 ] || exit 9
	kill -KILL $(printf '%s\n' "$all" | sed -n 's/^[sc][a-z]* //p') 2>/dev/null
	sleep 0.01 2>/dev/null || sleep 1
done
echo guard-done
`

// assign writes assignments, whose values need no quoting but spaces.
func assign(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&b, "%s='%s'\n", pairs[i], pairs[i+1])
	}
	return b.String()
}

// public is a value's public half as a line of authorized keys begins; "" without a value.
func public(v guard.Secret) (line string, key xssh.PublicKey, err error) {
	if v.Len() == 0 {
		return "", nil, nil
	}
	k, err := parse(v)
	if err != nil {
		return "", nil, err
	}
	key = k.PublicKey()
	return key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal()), key, nil
}

// edit changes the account's authorized keys: check, add or remove.
func (w *work) edit(c *client, do string) error {
	o := w.j.Options
	files, as := ".ssh/authorized_keys .ssh/authorized_keys2", w.user
	if o["file"] != "" {
		files = o["file"]
	}
	if w.ca {
		files = o["trusted"]
	}
	if strings.HasPrefix(files, "/") {
		as = c.user
	}
	before, _, err := public(w.j.Current)
	if err != nil {
		return err
	}
	after, _, err := public(w.j.Candidate)
	if err != nil {
		return err
	}
	only := ""
	if o["only"] == "yes" && w.j.Emergency && !w.ca {
		only = "1"
	}
	if after == "" && do != "check" {
		return errors.New("there is no new key")
	}
	return w.run(c, as, assign("do", do, "files", files, "old", before, "new", after, "only", only, "intent", w.j.Intent)+editScript)
}

// block makes the host refuse the old key.
func (w *work) block(c *client) error {
	if krl := w.j.Options["krl"]; krl != "" {
		before, _, err := public(w.j.Current)
		if err != nil {
			return err
		}
		if err := w.run(c, c.user, assign("krl", krl, "old", before, "intent", w.j.Intent)+krlScript); err != nil {
			return err
		}
	}
	return w.edit(c, "remove")
}

// end ends the old key's sessions.
func (w *work) end(c *client) error {
	before, key, err := public(w.j.Current)
	if err != nil {
		return err
	}
	which := w.j.Options["sessions"]
	bykey, fingerprint, spare := "", "", ""
	if which == "key" || which == "" && !w.j.Emergency {
		bykey = "1"
	}
	if w.ca {
		fingerprint = xssh.FingerprintSHA256(key)
	}
	if !w.j.Emergency && w.j.Spare != nil {
		for _, pid := range w.j.Spare() {
			spare += fmt.Sprint(" ", pid)
		}
	}
	return w.run(c, c.user, assign("user", w.user, "old", before, "bykey", bykey, "fingerprint", fingerprint, "spare", spare)+endScript)
}

// run has /bin/sh on the host read a script, as another account if it must.
func (w *work) run(c *client, as, script string) error {
	s, err := c.NewSession()
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	defer s.Close()
	var out bytes.Buffer
	s.Stdin, s.Stdout = strings.NewReader(script), &capped{&out}
	command := "exec /bin/sh -s"
	if as != c.user {
		command = "exec su -s /bin/sh " + as + " -c 'exec /bin/sh -s'"
	}
	err = s.Run(command)
	var exit *xssh.ExitError
	switch {
	case errors.As(err, &exit):
		return w.explain(exit.ExitStatus(), as, c.user)
	case err != nil:
		return fmt.Errorf("the session ended half-way: %w", err)
	case !strings.HasSuffix(strings.TrimSpace(out.String()), "guard-done"):
		return fmt.Errorf("the login of %s runs a command of its own instead of a shell: add admin=NAME to the rotate option: %w", c.user, rotate.ErrPermanent)
	}
	return nil
}

func (w *work) explain(status int, as, login string) error {
	said := "the shell on the host failed"
	switch status {
	case 3:
		said = "the old key has no line in the host's files of keys: name the file with file=PATH"
		if w.ca {
			said = "the old authority has no line in the host's trusted file"
		}
	case 5:
		said = "the account has no home folder"
	case 6:
		said = "the file of keys cannot be changed by " + as
	case 7:
		said = "the list of revoked keys cannot be changed by " + login + ": is ssh-keygen there, and may it write krl's folder?"
	case 8:
		said = "the host's processes cannot be listed: ps and awk are needed"
	case 9:
		return errors.New("sessions of the account do not end")
	case 127:
		said = "a program is missing on the host (su, awk, ps)"
	default:
		return fmt.Errorf("%s with status %d", said, status)
	}
	return fmt.Errorf("%s: %w", said, rotate.ErrPermanent)
}

// capped keeps the first bytes that are written to it.
type capped struct{ b *bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if room := 4096 - c.b.Len(); room > 0 {
		c.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
