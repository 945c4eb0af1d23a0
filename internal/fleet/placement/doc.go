// Package placement is the room of the question what runs where: from a fleet's
// Placements and sources and one FleetCluster to that cluster's assignment. It
// is pure: no clock, no cluster, and the same inputs give the same bytes.
package placement
