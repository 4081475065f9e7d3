package aws

import (
	"encoding/json"
	"encoding/xml"
	"slices"
	"strings"
	"time"
)

// Denial is what a refusal says, in the words of guard's own.
type Denial struct {
	Status     int      `json:"-" xml:"-"`
	Error      string   `json:"error" xml:"error"`
	Layer      string   `json:"layer" xml:"layer"`
	Credential string   `json:"credential" xml:"credential"`
	Host       string   `json:"host" xml:"host"`
	Method     string   `json:"method" xml:"method"`
	Path       string   `json:"path" xml:"path"`
	Rule       string   `json:"rule" xml:"rule"`
	Reason     string   `json:"reason" xml:"reason"`
	NextSteps  []string `json:"next_steps" xml:"next_steps>step"`
	RequestID  string   `json:"request_id" xml:"request_id"`
}

// shape is how refusals of r look: XML where S3 or the query protocol is spoken, JSON
// elsewhere. In both, the code is one of AWS's.
func (s *Signer) shape(r *Request, sig *signature) func(Denial) (string, []byte) {
	service := ""
	if sig != nil {
		service = sig.service
	}
	if service == "" {
		labels := strings.Split(r.Host, ".")
		service = labels[0]
		if !strings.HasSuffix(r.Host, ".amazonaws.com") || slices.ContainsFunc(labels, func(l string) bool { return l == "s3" || strings.HasPrefix(l, "s3-") }) {
			service = "s3"
		}
	}
	form := slices.Contains([]string{"sts", "iam", "ec2", "sns", "rds", "cloudformation", "autoscaling", "elasticloadbalancing", "elasticache", "redshift", "elasticbeanstalk", "email", "cloudsearch", "monitoring"}, service) &&
		r.Header.Get("X-Amz-Target") == ""
	return func(d Denial) (string, []byte) {
		code := "AccessDenied"
		switch {
		case d.Layer == "upstream":
			code = "ServiceUnavailable"
		case d.Rule == "aws-signature":
			code = codeOf(d.Reason)
		}
		message := "guard: " + d.Reason
		if len(d.NextSteps) > 0 {
			message += " (" + strings.Join(d.NextSteps, "; ") + ")"
		}
		switch {
		case s3Like(service):
			var e struct {
				XMLName    xml.Name `xml:"Error"`
				Code       string
				Message    string
				Resource   string
				RequestId  string
				ServerTime string `xml:",omitempty"`
				Denial
			}
			e.Code, e.Message, e.Resource, e.RequestId, e.Denial = code, message, d.Path, d.RequestID, d
			if code == "RequestTimeTooSkewed" {
				e.ServerTime = s.now().UTC().Format(time.RFC3339)
			}
			return "application/xml", marshalXML(e)
		case form:
			var e struct {
				XMLName xml.Name `xml:"ErrorResponse"`
				Error   struct {
					Type    string
					Code    string
					Message string
				}
				RequestId string
				Denial    Denial `xml:"Guard"`
			}
			e.Error.Type, e.Error.Code, e.Error.Message, e.RequestId, e.Denial = "Sender", code, message, d.RequestID, d
			return "text/xml", marshalXML(e)
		}
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
			Denial
		}
		if code == "AccessDenied" {
			code = "AccessDeniedException"
		}
		e.Type, e.Message, e.Denial = code, message, d
		b, err := json.Marshal(e)
		if err != nil {
			b = []byte("{}")
		}
		return "application/x-amz-json-1.1", b
	}
}

func marshalXML(v any) []byte {
	b, err := xml.Marshal(v)
	if err != nil {
		b = []byte("<Error><Code>AccessDenied</Code></Error>")
	}
	return append([]byte(xml.Header), b...)
}

// codeOf finds AWS's code for one of this package's sentences. A decision has no
// place for it.
func codeOf(reason string) string {
	for _, c := range []struct{ has, code string }{
		{"too large.", "RequestTimeTooSkewed"},
		{"not the session's", "InvalidAccessKeyId"},
		{"is not signed", "AccessDenied"},
		{"does not verify", "SignatureDoesNotMatch"},
		{"more than one signature", "InvalidArgument"},
		{"Version 2", "InvalidRequest"},
	} {
		if strings.Contains(reason, c.has) {
			return c.code
		}
	}
	return "AccessDenied"
}
