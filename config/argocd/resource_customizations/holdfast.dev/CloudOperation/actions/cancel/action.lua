obj.spec.cancel = { reason = "cancelled in Argo CD" }
return obj
