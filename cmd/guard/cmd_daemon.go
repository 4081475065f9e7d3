package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"guard/audit"
	"guard/rotate"
	"guard/vault"
)

var daemonCommand = command{
	name: "daemon", args: "[--print-unit systemd | launchd]", short: "replace credentials when they fall due, and go on with what was left open",
	example: "guard daemon\nguard daemon --print-unit systemd >~/.config/systemd/user/guard.service",
	run:     runDaemon,
}

const (
	// daemonLeast and daemonMost bound how long the daemon waits between two looks: the
	// first so that an issuer that is down is not asked all the time, the second since the
	// clock or the vault may have been changed.
	daemonLeast = 5 * time.Second
	daemonMost  = 5 * time.Minute
	// lookEvery is how often it looks whether the vault changed, or is locked.
	lookEvery = 200 * time.Millisecond
)

// daemon is `guard daemon`.
type daemon struct {
	app   *app
	vault *vault.Vault
	log   *audit.Log
	lock  *holder
	tells *notifier
	// due does what is due, and says when something is next.
	due func(context.Context) ([]rotate.Report, time.Time, error)
	now func() time.Time

	failed  map[string]string // what was said of a credential's rotation last
	waiting time.Duration
	grew    time.Time // when the log grew last, after the last look
}

func runDaemon(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	unit := f.String("print-unit", "", "print a unit for systemd (a user's) or launchd, and end")
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return usagef("daemon takes no arguments")
	}
	if *unit != "" {
		return a.printUnit(*unit)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := a.openRotation(false)
	if err != nil {
		return err
	}
	defer r.close()
	// One is enough: two would both ask the same issuers.
	release, err := vault.TryLock(filepath.Join(a.home(), "daemon.lock"))
	if err != nil {
		return fmt.Errorf("another guard daemon runs for %s: %w", a.home(), err)
	}
	defer release()
	d := &daemon{app: a, vault: r.vault, log: r.log, failed: map[string]string{}, now: time.Now}
	d.due = func(ctx context.Context) ([]rotate.Report, time.Time, error) { return r.due(ctx, "") }
	if d.tells, err = a.newNotifier(); err != nil {
		return err
	}
	defer d.tells.close()
	if d.lock, err = a.hold(r.vault, "daemon-"+newSessionID(time.Now()), machineClock()); err != nil {
		return err
	}
	defer d.lock.close()
	d.lock.shut = func(why string) {
		a.say("the vault was locked (%s): nothing is replaced until guard unlock", why)
	}
	d.lock.opened = func() { a.say("the vault is open again") }
	if err := d.note("daemon.start", ""); err != nil {
		return err
	}
	a.say("ready")
	sdNotify(a.getenv("NOTIFY_SOCKET"), "READY=1")
	err = d.run(ctx)
	sdNotify(a.getenv("NOTIFY_SOCKET"), "STOPPING=1")
	return errors.Join(err, d.note("daemon.end", ""))
}

func (d *daemon) note(typ, reason string) error {
	_, err := d.log.Append(audit.Record{Type: typ, Profile: "daemon", Reason: reason})
	return err
}

// run does what is due until ctx ends.
func (d *daemon) run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var next time.Time
	seen := uint64(0)
	for {
		if err := d.lock.check(); err != nil {
			d.app.say("%v", err)
		}
		now := d.now()
		changed := d.vault.Generation() != seen
		if d.logGrew() { // uses count
			next = earlier(next, now.Add(daemonLeast))
		}
		if !d.vault.Locked() && (changed || !now.Before(next)) {
			next = d.step(ctx, now)
			seen = d.vault.Generation()
			sdNotify(d.app.getenv("NOTIFY_SOCKET"), "WATCHDOG=1\nSTATUS=next at "+next.Format(time.RFC3339))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// logGrew says whether somebody wrote to the log since the last look.
func (d *daemon) logGrew() bool {
	fi, err := os.Stat(filepath.Join(d.app.auditDir(), "log.jsonl"))
	if err != nil || !fi.ModTime().After(d.grew) {
		return false
	}
	d.grew = fi.ModTime()
	return true
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// step does what is due, tells of it, and answers when to look again. What fails
// again and again is tried less and less often.
func (d *daemon) step(ctx context.Context, now time.Time) time.Time {
	reps, next, err := d.due(ctx)
	if ctx.Err() != nil {
		return now
	}
	done := 0
	for _, rep := range reps {
		name := rep.Context + ":" + rep.Credential
		line := fmt.Sprintf("%s (context %s): %s, version %d to %d", rep.Credential, rep.Context, rep.State, rep.From, rep.To)
		switch {
		case rep.Dead:
			line += ", the old value was tried and refused"
			delete(d.failed, name)
			done++
			d.app.say("%s", visible(line))
		case d.failed[name] != rep.State:
			d.failed[name] = rep.State
			d.app.say("%s", visible(line))
			for _, n := range rep.Next {
				d.app.say("  %s", visible(n))
			}
		}
	}
	if err != nil && d.failed[""] != err.Error() {
		d.failed[""] = err.Error()
		d.app.say("%s", visible(err.Error()))
		_ = d.note("daemon.problem", err.Error()) // it was said; a log that fails is said below
	}
	if err == nil {
		delete(d.failed, "")
	}
	d.tell(reps)
	if kerr := d.app.keepHead(d.vault, d.log); kerr != nil {
		d.app.say("how far the log is could not be kept: %v", kerr)
	}
	switch {
	case err == nil || done > 0:
		d.waiting = daemonLeast
	default:
		d.waiting = min(max(d.waiting, daemonLeast)*2, daemonMost)
	}
	at := now.Add(daemonMost)
	if err != nil {
		at = now.Add(d.waiting)
	}
	if !next.IsZero() && next.Before(at) {
		at = next
	}
	// Machines that were set up alike do not ask alike.
	least := now.Add(daemonLeast)
	if at.Before(least) {
		at = least
	}
	return at.Add(time.Duration(rand.Int64N(int64(time.Second))))
}

// tell has the notices of incidents sent whose rotations ended.
func (d *daemon) tell(reps []rotate.Report) {
	store, err := rotate.OpenIncidents(d.app.incidentDir())
	for _, rep := range reps {
		if err != nil || rep.Incident == "" || !rep.Dead {
			continue
		}
		if i, err := store.Load(rep.Incident); err == nil {
			d.tells.tell(i)
		}
	}
}

// sdNotify tells systemd how the service is (sd_notify(3)); without a socket, nobody.
func sdNotify(socket, state string) {
	if socket == "" {
		return
	}
	if strings.HasPrefix(socket, "@") {
		socket = "\x00" + socket[1:]
	}
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		return // the service goes on; systemd says that it did not hear of it
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}

// printUnit prints a unit that runs this program as this user's daemon.
func (a *app) printUnit(kind string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	var args []string
	if kf := a.unlock.keyfile; kf != "" {
		args = append(args, "--keyfile", kf)
	} else if kf := a.getenv("GUARD_KEYFILE"); kf != "" {
		args = append(args, "--keyfile", kf)
	}
	home := a.home()
	for _, s := range append([]string{exe, home}, args...) {
		if strings.ContainsAny(s, "\"\\\n%$<>&") {
			return fmt.Errorf("the path %q cannot be written into a unit: move it", s)
		}
	}
	switch kind {
	case "systemd":
		fmt.Fprintf(a.stdout, systemdUnit, exe+quoted(args), home, home)
	case "launchd":
		var list strings.Builder
		for _, s := range append([]string{exe, "daemon"}, args...) {
			fmt.Fprintf(&list, "\t\t<string>%s</string>\n", s)
		}
		fmt.Fprintf(a.stdout, launchdPlist, list.String(), home)
	default:
		return usagef("--print-unit %q: want systemd or launchd", kind)
	}
	return nil
}

func quoted(args []string) string {
	s := " daemon"
	for _, x := range args {
		s += ` "` + x + `"`
	}
	return s
}

const systemdUnit = `[Unit]
Description=guard: replaces credentials when they fall due
Documentation=man:systemd.exec(5)
After=network-online.target

[Service]
Type=notify
ExecStart=%s
Environment="GUARD_HOME=%s"
Restart=on-failure
RestartSec=5
WatchdogSec=15min
UMask=0077
LimitCORE=0
LimitMEMLOCK=64M
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
# A rotation program that writes elsewhere needs its folder here as well.
ReadWritePaths="%s"
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
CapabilityBoundingSet=

[Install]
WantedBy=default.target
`

const launchdPlist = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>guard.daemon</string>
	<key>ProgramArguments</key>
	<array>
%s	</array>
	<key>EnvironmentVariables</key>
	<dict>
		<key>GUARD_HOME</key>
		<string>%s</string>
	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ProcessType</key>
	<string>Background</string>
	<key>Umask</key>
	<integer>63</integer>
</dict>
</plist>
`
