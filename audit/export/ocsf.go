package export

import (
	"strings"

	"guard/audit"
)

// object is a JSON object. Empty strings, zeros and empty objects are left out.
type object map[string]any

func (o object) set(key string, value any) object {
	switch v := value.(type) {
	case string:
		if v == "" {
			return o
		}
	case int:
		if v == 0 {
			return o
		}
	case object:
		if len(v) == 0 {
			return o
		}
	}
	o[key] = value
	return o
}

// Classes of OCSF 1.6 that records become.
const (
	classBase      = 0
	classFinding   = 2004 // Detection Finding: leaks
	classAuthorize = 3003 // Authorize Session: approvals
	classEntity    = 3004 // Entity Management: what changes the vault
	classActivity  = 6003 // API Activity: uses, and refused connections
	classLifecycle = 6002 // Application Lifecycle: sessions
)

// OCSF returns r as an event of the Open Cybersecurity Schema Framework 1.6. Leaks are
// detection findings, uses are API activity, changes of the vault and rotations are
// entity management, sessions are application lifecycle. The whole record is
// in unmapped, so that nothing is lost.
func OCSF(s Source, r audit.Record) map[string]any {
	class, activity := ocsfClass(r)
	category := class / 1000
	e := object{
		"class_uid": class, "category_uid": category, "activity_id": activity, "type_uid": class*100 + activity,
		"time": millis(r.Time), "message": title(r),
		"severity_id": [...]int{informational: 1, low: 2, medium: 3, high: 4, critical: 5}[severityOf(r)],
		"metadata": object{
			"version": "1.6.0", "log_name": "guard audit", "sequence": r.Seq, "uid": s.Host + "/" + r.Session + "/" + number(int64(r.Seq)),
			"product": object{"name": "guard", "vendor_name": "guard", "version": s.Version},
		},
		"device":   object{"hostname": s.Host, "type_id": 0},
		"unmapped": r,
	}
	if r.DurationMS > 0 {
		e["duration"] = int64(r.DurationMS)
	}
	status, known := ocsfStatus(r)
	if known {
		e["status_id"] = status
		e.set("status_detail", strings.TrimSpace(r.Result+" "+r.Reason))
	}
	process := object{}.set("pid", r.PID)
	file := object{}.set("path", r.Exe).set("name", r.Exe[strings.LastIndexByte(r.Exe, '/')+1:])
	if len(file) > 0 {
		file["type_id"] = 1
		if r.ExeSHA256 != "" {
			file["hashes"] = []any{object{"algorithm_id": 3, "algorithm": "SHA-256", "value": r.ExeSHA256}}
		}
		process["file"] = file
	}
	actor := object{}.set("process", process)
	if r.Session != "" {
		actor["session"] = object{"uid": r.Session}
	}
	if r.Profile != "" || r.Task != "" {
		actor["user"] = object{"type_id": 99, "type": "agent"}.set("name", r.Profile).set("full_name", r.Task)
	}
	resource := object{}.set("name", r.Credential)
	if len(resource) > 0 {
		resource["type"] = "credential"
		resource.set("group", object{}.set("name", r.Context)).set("version", number(int64(r.Version)))
	}
	request := object{}.set("http_method", r.Method)
	url := object{}.set("hostname", r.Host).set("path", r.Path)
	request.set("url", url)
	switch class {
	case classActivity:
		operation := r.Scope
		if operation == "" {
			operation = r.Type
		}
		e["api"] = object{"operation": operation, "service": object{"name": r.Channel}}
		e["src_endpoint"] = object{"hostname": s.Host}
		e["actor"] = actor
		if len(resource) > 0 {
			e["resources"] = []any{resource}
		}
		e.set("dst_endpoint", object{}.set("hostname", r.Host))
		e.set("http_request", request)
	case classFinding:
		info := object{"uid": s.Host + "/" + number(int64(r.Seq)), "title": title(r), "created_time": millis(r.Time), "types": []string{"Credential leak"}}
		if r.Incident != "" {
			info["related_events"] = []any{object{"uid": r.Incident, "type": "incident"}}
		}
		e["finding_info"] = info
		e["actor"] = actor
		e["resources"] = []any{resource}
		e["is_alert"] = severityOf(r) >= high
		e["action_id"], e["disposition_id"] = 1, 1 // allowed
		if stopped(r.Decision) {
			e["action_id"], e["disposition_id"] = 2, 2 // denied, blocked
		}
	case classEntity:
		e["actor"] = actor
		e["entity"] = object{"type": "credential"}.set("name", r.Credential).set("version", number(int64(r.Version))).set("uid", r.Fingerprint)
	case classAuthorize:
		e["user"] = object{"type_id": 99, "type": "agent"}.set("name", r.Profile)
		e["session"] = object{"uid": r.Session}
		e["actor"] = actor
	case classLifecycle:
		e["app"] = object{"name": "guard session", "vendor_name": "guard"}.set("uid", r.Session).set("path", r.Path)
		e["actor"] = actor
	}
	return e
}

// ocsfClass returns the class and the activity of a record.
func ocsfClass(r audit.Record) (class, activity int) {
	switch r.Type {
	case audit.TypeLeak:
		return classFinding, 1 // Create
	case audit.TypeApproval:
		return classAuthorize, 1 // Assign Privileges
	case audit.TypeUse, audit.TypeResult, "egress.refused":
		switch r.Method {
		case "GET", "HEAD", "OPTIONS":
			return classActivity, 2 // Read
		case "POST":
			return classActivity, 1 // Create
		case "PUT", "PATCH":
			return classActivity, 3 // Update
		case "DELETE":
			return classActivity, 4 // Delete
		}
		return classActivity, 99
	case audit.TypeSessionStart:
		return classLifecycle, 3 // Start
	case audit.TypeSessionEnd:
		return classLifecycle, 4 // Stop
	case audit.TypeRotation, "secret.edit":
		return classEntity, 3 // Update
	case "secret.set":
		return classEntity, 1 // Create
	case "secret.reveal":
		return classEntity, 2 // Read
	case "secret.rm":
		return classEntity, 4 // Delete
	}
	return classBase, 99
}

func ocsfStatus(r audit.Record) (id int, known bool) {
	switch {
	case r.Type == audit.TypeLeak:
		return 0, false
	case stopped(r.Decision), r.Result == "failure":
		return 2, true
	case r.Result == "success", r.Result == "ok":
		return 1, true
	case r.Type == audit.TypeRotation:
		return 2, true // a step's result is "ok" or a sentence
	}
	return 0, false
}
