package health

// job is Current once the Job has completed, so that what depends on it (a
// migration, say) starts after it and not beside it. This is the rule of the
// toolkit's kustomize-controller; kstatus itself calls a started Job Current.
func job(o map[string]any) Verdict {
	if c, ok := condition(o, "Complete"); ok && c.status == "True" {
		return current()
	}
	// FailureTarget comes first, while the Job's last pods are still ending.
	for _, kind := range []string{"Failed", "FailureTarget"} {
		if c, ok := condition(o, kind); ok && c.status == "True" {
			return failed("%s", reasonAndMessage(c))
		}
	}
	if flag(o, "spec", "suspend") {
		return inProgress("is suspended")
	}
	want := num(o, num(o, 1, "spec", "parallelism"), "spec", "completions")
	return inProgress("%d of %d pods have succeeded, %d run, %d failed", num(o, 0, "status", "succeeded"), want,
		num(o, 0, "status", "active"), num(o, 0, "status", "failed"))
}

// definition is Current once the API server serves the kind under the names
// that were asked for.
func definition(o map[string]any) Verdict {
	names, _ := condition(o, "NamesAccepted")
	established, _ := condition(o, "Established")
	switch {
	case names.status == "False":
		return failed("its names are not accepted: %s", reasonAndMessage(names))
	case established.status == "False" && established.reason != "Installing":
		return failed("is not established: %s", reasonAndMessage(established))
	case names.status == "True" && established.status == "True":
		return current()
	}
	return inProgress("waits to be established")
}

// apiService is Current once the API server can reach what serves the group.
func apiService(o map[string]any) Verdict {
	c, ok := condition(o, "Available")
	switch {
	case !ok:
		return inProgress("waits to be available")
	case c.status == "True":
		return current()
	}
	return inProgress("is not available: %s", reasonAndMessage(c))
}

func reasonAndMessage(c cond) string {
	switch {
	case c.message == "":
		return c.reason
	case c.reason == "":
		return c.message
	}
	return c.reason + ": " + c.message
}
