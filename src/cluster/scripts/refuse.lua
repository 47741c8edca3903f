#!lua flags=allow-oom
-- refuse: ends a turn in flight that its worker will not run, with the reason. The record is left as it is. If the
-- session was never kept, because its build has failed, every turn in flight gets the reason and no key remains.
--
-- ARGV: id, wid, epoch, turn, request, the reason.
-- Returns {'ok'}, {'already'}, or {'conflict'} as `finish`.
-- Twice: {'already'}.
local id, wid, epoch, turn, request, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local key = session_key(id)
if redis.call('HGET', ns .. 'req:' .. request, 'kind') == 'refused' then
    return { 'already' }
elseif not is_owner(id, wid, epoch) then
    return { 'conflict' }
end
local flight = words(redis.call('HGET', key, 'flight'))
if not position(flight, turn) then
    return { 'conflict' }
elseif redis.call('HEXISTS', key, 'rev') == 0 then
    for _, other in ipairs(flight) do
        answer(id, other, 'refused', body)
    end
    redis.call('SREM', ns .. 'w:' .. wid .. ':s', id)
    remove(id)
else
    answer(id, turn, 'refused', body)
end
return { 'ok' }
