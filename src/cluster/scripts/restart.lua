#!lua
-- restart: puts the build of a faulted session in flight, as turn 0.
--
-- ARGV: id, request, cid, what the worker needs.
-- Returns {'begun', '0'}; or why not: {'missing'}, {'archived'}, {'busy', turn}, {'sound'} if it is not faulted,
-- {'capacity'}.
-- Twice: as `begin`.
local id, request, cid, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = session_key(id)
local there, wid, _, state = settle_owner(id)
local known = repeated(id, request, cid)
if known then
    return known
elseif not there then
    return { 'missing' }
end
local found = redis.call('HMGET', key, 'archived', 'flight', 'fault')
local flight = words(found[2])
if found[1] == '1' then
    return { 'archived' }
elseif #flight > 0 then
    return { 'busy', flight[1] }
elseif not found[3] then
    return { 'sound' }
end
wid = place(id, wid, state)
if not wid then
    return { 'capacity' }
end
put_in_flight(id, wid, { '0' }, '0', request, cid, body)
return { 'begun', '0' }
