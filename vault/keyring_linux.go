package vault

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// findKeyring says why there can be no Secret Service, before the D-Bus
// library looks: where it finds no bus, it starts one (dbus-launch), empty and
// left behind.
func findKeyring() error {
	addr := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if addr == "" || addr == "autolaunch:" {
		run := filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
		if _, err := os.Stat(filepath.Join(run, "dbus-session")); err == nil {
			return nil
		}
		addr = "unix:path=" + filepath.Join(run, "bus")
	}
	var last error
	for one := range strings.SplitSeq(addr, ";") {
		path, ok := socketPath(one)
		if !ok {
			return nil // tcp, autolaunch with a scope: the library's to try
		}
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			return c.Close()
		}
		last = err
	}
	return fmt.Errorf("no D-Bus session bus (headless, or DBUS_SESSION_BUS_ADDRESS is wrong): %w", errors.Unwrap(last))
}

// socketPath reads one address of the D-Bus specification, "Server addresses":
// unix:path=P or unix:abstract=P, with %-escapes.
func socketPath(addr string) (string, bool) {
	rest, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		return "", false
	}
	for kv := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(kv, "=")
		p, err := url.PathUnescape(v)
		if err != nil {
			return "", false
		}
		switch k {
		case "path":
			return p, true
		case "abstract":
			return "@" + p, true
		}
	}
	return "", false
}
