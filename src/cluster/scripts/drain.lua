#!lua flags=allow-oom
-- drain: a worker gets no more sessions. Turns of sessions that have none in flight go to other workers.
--
-- ARGV: wid.
-- Returns {'ok'}, or {'over'}.
-- Twice: the second call changes nothing.
local max, queue = lease_of(ARGV[2])
if not max then
    return { 'over' }
end
redis.call('SET', ns .. 'w:' .. ARGV[2] .. ':l', max .. ' ' .. queue .. ' draining', 'XX', 'KEEPTTL')
return { 'ok' }
