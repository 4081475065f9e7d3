package aws

import (
	"strings"

	"guard"
	"guard/broker"
)

// awsEndpoint says whether host, below AWS's own domains, is a service's endpoint and
// not a name that is given to what customers run, where anyone may listen.
func awsEndpoint(host string) bool {
	name := host
	for _, suffix := range []string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws"} {
		name = strings.TrimSuffix(name, suffix)
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		switch l {
		case "elb", "compute", "compute-1", "rds", "cache", "docdb", "neptune", "dax", "kafka", "mq", "awsapps", "vpce", "redshift-dev":
			return len(labels) <= 2 && labels[0] == l && l != "compute" && l != "compute-1" && l != "elb" // rds.REGION is the service itself
		}
	}
	return true
}

// bucketOf is the bucket that a host names, "" where the path does. control says that
// it is S3's control plane.
func bucketOf(c guard.Credential, host string, port int) (bucket string, control bool) {
	if broker.MatchHost([]string{"*.amazonaws.com", "*.amazonaws.com.cn", "*.api.aws"}, host, port) {
		labels := strings.Split(host, ".")
		for i := len(labels) - 1; i >= 0; i-- {
			if l := labels[i]; l == "s3" || strings.HasPrefix(l, "s3-") || strings.HasPrefix(l, "s3express") {
				return strings.Join(labels[:i], "."), strings.HasPrefix(l, "s3-control")
			}
		}
		return "", false
	}
	best := ""
	for _, p := range c.Hosts {
		if !broker.MatchHost([]string{p}, host, port) {
			continue
		}
		suffix, wild := strings.CutPrefix(p, "*")
		if !wild {
			return "", false
		}
		if i := strings.LastIndexByte(suffix, ':'); i >= 0 {
			suffix = suffix[:i]
		}
		best = strings.TrimSuffix(host, broker.CanonicalHost(suffix))
	}
	return best, false
}
