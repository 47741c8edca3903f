#!lua flags=allow-oom
-- renew: prolongs the lease of a worker or a client. It never makes one: an incarnation whose lease is gone is over.
--
-- ARGV: 'w' or 'c', its id, the lease in milliseconds.
-- Returns {'ok'}, or {'over'}.
local kind, name, ttl = ARGV[2], ARGV[3], ARGV[4]
if redis.call('PEXPIRE', ns .. kind .. ':' .. name .. ':l', ttl) == 0 then
    return { 'over' }
end
if kind == 'c' then
    redis.call('PEXPIRE', ns .. 'c:' .. name, ttl)
    redis.call('PEXPIRE', ns .. 'c:' .. name .. ':f', ttl)
end
return { 'ok' }
