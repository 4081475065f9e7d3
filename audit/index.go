package audit

func indexName(s segment) string { return s.name + ".idx" }
