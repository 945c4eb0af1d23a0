// Package template is the room where ClusterTemplates become objects. It is pure: a template, a
// FleetCluster and its parameters go in, objects or a list of what is wrong come out,
// and no cluster is asked. So the admission, the reconciler and the command
// line give the same answers.
//
// A template is structure and not text: strings of a JSON value hold expressions in ${ }, in
// the language of internal/expr. A string that is one expression becomes its value, with
// its type; otherwise the values are put into the text. A parameter can so never
// change the shape of what surrounds it.
package template
