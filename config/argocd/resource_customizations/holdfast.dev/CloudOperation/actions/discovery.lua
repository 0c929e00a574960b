local finished = false
local restored = false
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == "Succeeded" then
      finished = condition.status ~= "Unknown"
      restored = condition.reason == "Restored"
    end
  end
end

local suspended = obj.spec.suspend == true
local actions = {}
actions["suspend"] = { disabled = finished or suspended }
actions["resume"] = { disabled = finished or not (suspended or restored) }
actions["cancel"] = { disabled = finished or obj.spec.cancel ~= nil }
return actions
