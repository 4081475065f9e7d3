package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"slices"

	"github.com/godbus/dbus/v5"
)

// desktopNotice shows a notice on the user's desktop (Desktop Notifications
// Specification 1.2), as urgent where something got out.
func desktopNotice(ctx context.Context, getenv func(string) string, all []notice, text string) error {
	address := getenv("DBUS_SESSION_BUS_ADDRESS")
	if address == "" {
		return errors.New("there is no session bus here (DBUS_SESSION_BUS_ADDRESS)")
	}
	c, err := dbus.Connect(address, dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("the session bus: %w", err)
	}
	defer c.Close()
	title, urgency := "guard: a credential leaked", byte(1)
	if len(all) > 1 {
		title = fmt.Sprintf("guard: %d credentials leaked", len(all))
	}
	if !slices.ContainsFunc(all, func(n notice) bool { return n.Request == "" }) {
		title = "guard: a session asks you"
	}
	for _, n := range all {
		if n.Request == "" && (n.Escaped || !n.Dead) {
			urgency = 2
		}
	}
	const most = 4000 // a body that no desktop chokes on
	if len(text) > most {
		text = text[:most] + "…"
	}
	call := c.Object("org.freedesktop.Notifications", "/org/freedesktop/Notifications").CallWithContext(ctx, "org.freedesktop.Notifications.Notify", 0,
		"guard", uint32(0), "dialog-warning", title, html.EscapeString(text), []string{}, map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgency)}, int32(-1))
	return call.Err
}
