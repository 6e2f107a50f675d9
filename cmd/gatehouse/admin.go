package main

import (
	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/admin"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// openAdmin serves health and metrics, which say "not ready" until the first snapshot serves, and the inside.
func openAdmin(o runOptions, plane *dataplane.DataPlane, seen *telemetry.Telemetry) (*admin.Admin, error) {
	return admin.Start(admin.Options{
		Public: o.healthAddress, Local: o.adminAddress, Ready: plane.Ready, Telemetry: seen, Snapshot: plane.Text, Pprof: o.pprof,
	})
}
