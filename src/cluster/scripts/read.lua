#!lua flags=no-writes
-- read: reads the state of a session without asking its worker.
--
-- ARGV: id; then '1' for the last text of the assistant, or nothing.
-- Returns {'missing'}, or {'ok', header or '' during the first build, labels, archived, the last turn, turns in flight,
-- {input, request}..., {the message of its fault} or {}, '1' if a live worker has the
-- session}, and with '1' {the last message with that text} or {}, of the
-- last 64 messages. The turns and the input requests of a worker that is gone are left out.
local key = session_key(ARGV[2])
local found = redis.call('HMGET', key, 'made', 'head', 'labels', 'archived', 'turn', 'wid', 'flight', 'fault')
local is_live = lease_of(found[6])
if not found[1] or (not found[2] and not is_live) then
    return { 'missing' }
end
local flight, inputs = is_live and found[7] or '', {}
for _, turn in ipairs(words(flight)) do
    for _, input in ipairs(words(redis.call('HGET', key, 't:' .. turn .. ':in'))) do
        local request = redis.call('HGET', key, 'i:' .. input)
        if request then
            inputs[#inputs + 1] = { input, request }
        end
    end
end
local fault, has_worker = found[8] and { found[8] } or {}, is_live and '1' or '0'
local view = { 'ok', found[2] or '', found[3] or '', found[4] or '0', found[5] or '0', flight, inputs, fault, has_worker }
if ARGV[3] then
    view[10] = {}
    for at = -1, -64, -1 do
        local message = redis.call('LINDEX', key .. ':h', at)
        if not message then
            break
        elseif string.find(message, '{"role":"assistant"', 1, true) == 1
            and string.find(message, '"type":"text"', 1, true) then
            view[10] = { message }
            break
        end
    end
end
return view
