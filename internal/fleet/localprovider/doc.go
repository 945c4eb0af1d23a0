// Package localprovider is the room of the local provider: infrastructure, control planes and
// bootstrap data, as Cluster API's contract v1beta2 asks for them, for clusters that run on the
// machine of their hub. Cluster API itself cannot tell it from a cloud.
//
// Machines are simulated nodes. Everything else of a cluster is real, and so is all that Cluster
// API does with it.
package localprovider
