package controller

import _ "github.com/fluxcd/source-watcher/api/v2/v1beta1"
