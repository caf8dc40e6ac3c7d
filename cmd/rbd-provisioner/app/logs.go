package app

import (
	"strings"

	"k8s.io/klog/v2"
)

// bodyRedactor is a log filter. With -v=8 and higher, client-go logs the bodies of requests and
// responses, which include Secrets with Ceph keys.
type bodyRedactor struct{}

var _ klog.LogFilter = bodyRedactor{}

// Filter implements klog.LogFilter.
func (bodyRedactor) Filter(args []interface{}) []interface{} { return args }

// FilterF implements klog.LogFilter. It recognises bodies by the words that the rest package of
// client-go logs.
func (bodyRedactor) FilterF(format string, args []interface{}) (string, []interface{}) {
	if len(args) == 2 && (args[0] == "Request Body" || args[0] == "Response Body") {
		return "%s: not shown, it may contain a Secret", args[:1]
	}
	return format, args
}

// FilterS implements klog.LogFilter.
func (bodyRedactor) FilterS(msg string, keysAndValues []interface{}) (string, []interface{}) {
	return msg, keysAndValues
}

// warningLogger logs the warnings of the API server.
type warningLogger struct{}

// Write implements io.Writer.
func (warningLogger) Write(line []byte) (int, error) {
	klog.Background().Info("Received a warning from the Kubernetes API server", "warning", strings.TrimSpace(string(line)))
	return len(line), nil
}
