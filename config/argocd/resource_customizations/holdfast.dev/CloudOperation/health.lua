-- The condition Succeeded is Unknown while an operation is active; its reason says what the operation does.
-- Suspended is what Argo CD calls an application that waits for a person.
local waitsForPerson = {
  Suspended = true,
  Restored = true,
  Stuck = true,
  AwaitingApproval = true,
}

local health = { status = "Progressing", message = "the operator has not seen it yet" }
if obj.status == nil or obj.status.conditions == nil then
  return health
end
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Succeeded" then
    health.message = condition.reason
    if condition.message ~= nil and condition.message ~= "" then
      health.message = condition.reason .. ": " .. condition.message
    end
    if condition.status == "True" then
      health.status = "Healthy"
    elseif condition.status == "False" then
      health.status = "Degraded"
    elseif waitsForPerson[condition.reason] then
      health.status = "Suspended"
    end
  end
end
return health
