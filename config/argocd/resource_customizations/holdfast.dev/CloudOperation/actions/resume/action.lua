-- Absent, not false: what Git doesn't have is no difference.
obj.spec.suspend = nil
-- An operation that came back from a backup is held as long as it has this label.
local labels = obj.metadata.labels
if labels ~= nil then
  labels["velero.io/restore-name"] = nil
  if next(labels) == nil then
    obj.metadata.labels = nil
  end
end
return obj
