#!lua
-- open: makes a session and gives it to a worker, with a first turn (number 1) or without one. Without one, the build
-- itself is in flight, as number 0. The session is in lists once its worker has kept it.
--
-- ARGV: id, request, cid, the first number in flight ('0' or '1'), what the worker needs.
-- Returns {'begun', turn}, {'exists'} or {'capacity'}; for a known request as `begin`.
-- Twice: the second call begins nothing.
local id, request, cid, turn, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local there = settle_owner(id)
local known = repeated(id, request, cid)
if known then
    return known
elseif there then
    return { 'exists' }
end
local wid = choose_worker()
if not wid then
    return { 'capacity' }
end
redis.call('HSET', session_key(id), 'made', '1', 'turn', turn, 'answers', redis.call('GET', ns .. 'answers') or '0')
give(id, wid)
put_in_flight(id, wid, { turn }, turn, request, cid, body)
return { 'begun', turn }
