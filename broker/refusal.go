package broker

// Refusal is what a client is told of a refusal in JSON, beside the key "error".
type Refusal struct {
	Layer      string   `json:"layer"`
	Credential string   `json:"credential"`
	Host       string   `json:"host"`
	Method     string   `json:"method"`
	Path       string   `json:"path"`
	Rule       string   `json:"rule"`
	Reason     string   `json:"reason"`
	NextSteps  []string `json:"next_steps"`
	RequestID  string   `json:"request_id"`
}
