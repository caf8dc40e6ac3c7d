package app

import "k8s.io/klog/v2"

// hideBodies is a filter of the log. From -v=8 on, client-go logs the body of each
// request and response, and among these are the Secrets with our keys.
type hideBodies struct{}

var _ klog.LogFilter = hideBodies{}

// Filter implements klog.LogFilter.
func (hideBodies) Filter(args []interface{}) []interface{} { return args }

// FilterF implements klog.LogFilter. It goes by what client-go's rest package calls
// bodies.
func (hideBodies) FilterF(format string, args []interface{}) (string, []interface{}) {
	if len(args) == 2 && (args[0] == "Request Body" || args[0] == "Response Body") {
		return "%s: not shown, for there are Secrets among them", args[:1]
	}
	return format, args
}

// FilterS implements klog.LogFilter.
func (hideBodies) FilterS(msg string, keysAndValues []interface{}) (string, []interface{}) {
	return msg, keysAndValues
}
